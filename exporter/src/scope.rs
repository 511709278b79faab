//! Where in a model a graph is: the main graph, a graph in a node's attribute, the body of a function.

use isqrt_cov_proto::onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::fused::place_of;
use crate::graph::subgraphs;

/// A graph of a model, by the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    /// The function, by its place in `model.functions`, in whose body the way begins; none for the main graph.
    pub function: Option<usize>,
    /// The way from there: a node, by its place among the nodes of its graph, and which of its [`subgraphs`] it is.
    pub path: Vec<(usize, usize)>,
}

impl Scope {
    /// The body of a function.
    #[must_use]
    pub fn of_function(function: usize) -> Self {
        Self { function: Some(function), path: Vec::new() }
    }

    /// A graph in an attribute of one of this graph's nodes.
    #[must_use]
    pub fn inside(&self, node: usize, subgraph: usize) -> Self {
        let mut path = self.path.clone();
        path.push((node, subgraph));
        Self { function: self.function, path }
    }

    /// The graph around this one; none for the main graph and for functions.
    #[must_use]
    pub fn outer(&self) -> Option<Self> {
        let (_, path) = self.path.split_last()?;
        Some(Self { function: self.function, path: path.to_vec() })
    }

    /// Whether this is the main graph.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.function.is_none() && self.path.is_empty()
    }

    /// The nodes of the graph, where the model has such a graph.
    #[must_use]
    pub fn nodes<'a>(&self, model: &'a ModelProto) -> Option<&'a [NodeProto]> {
        if self.path.is_empty()
            && let Some(function) = self.function
        {
            return Some(&model.functions.get(function)?.node);
        }
        Some(&self.graph(model)?.node)
    }

    /// The graph, where the model has it; the body of a function is none.
    #[must_use]
    pub fn graph<'a>(&self, model: &'a ModelProto) -> Option<&'a GraphProto> {
        let mut graph = model.graph.as_ref()?;
        let mut nodes = match self.function {
            None => &graph.node,
            Some(_) if self.path.is_empty() => return None,
            Some(function) => &model.functions.get(function)?.node,
        };
        for &(node, subgraph) in &self.path {
            graph = subgraphs(nodes.get(node)?).nth(subgraph)?;
            nodes = &graph.node;
        }
        Some(graph)
    }

    /// The nodes of the graph, to be changed.
    pub fn nodes_mut<'a>(&self, model: &'a mut ModelProto) -> Option<&'a mut Vec<NodeProto>> {
        match self.function {
            Some(function) if self.path.is_empty() => Some(&mut model.functions.get_mut(function)?.node),
            _ => Some(&mut self.graph_mut(model)?.node),
        }
    }

    /// The graph, to be changed; the body of a function is none.
    pub fn graph_mut<'a>(&self, model: &'a mut ModelProto) -> Option<&'a mut GraphProto> {
        let (&(node, subgraph), way) = match (self.path.split_last(), self.function) {
            (Some(split), _) => split,
            (None, None) => return model.graph.as_mut(),
            (None, Some(_)) => return None,
        };
        let outer = Self { function: self.function, path: way.to_vec() };
        let node = outer.nodes_mut(model)?.get_mut(node)?;
        let graphs = node.attribute.iter_mut();
        graphs
            .flat_map(|attribute| attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs))
            .nth(subgraph)
    }

    /// For people: nothing for the main graph.
    #[must_use]
    pub fn describe(&self, model: &ModelProto) -> String {
        let mut parts = Vec::new();
        if let Some(function) = self.function.and_then(|function| model.functions.get(function)) {
            parts.push(format!("function {}:{}", function.domain(), function.name()));
        }
        let mut scope = Self { function: self.function, path: Vec::new() };
        for &(node, subgraph) in &self.path {
            if let Some(proto) = scope.nodes(model).and_then(|nodes| nodes.get(node)) {
                let mut graphs = proto.attribute.iter().flat_map(|attribute| {
                    attribute.g.as_deref().into_iter().chain(&attribute.graphs).map(|_| attribute.name())
                });
                let attribute = graphs.nth(subgraph).unwrap_or_default();
                parts.push(format!("{attribute} of {} `{}`", proto.op_type(), place_of(proto)));
            }
            scope = scope.inside(node, subgraph);
        }
        parts.join(", ")
    }
}

/// The bodies of a model's functions as graphs, in the model's order.
#[must_use]
pub fn bodies(model: &ModelProto) -> Vec<GraphProto> {
    model.functions.iter().map(body).collect()
}

/// The body of a function as a graph.
#[must_use]
pub fn body(function: &FunctionProto) -> GraphProto {
    let named = |name: &String| ValueInfoProto::named(name.clone());
    GraphProto {
        node: function.node.clone(),
        input: function.input.iter().map(named).collect(),
        output: function.output.iter().map(named).collect(),
        ..GraphProto::default()
    }
}
