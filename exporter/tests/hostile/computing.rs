//! Well-formed models that compute what no machine has room or time for.

use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};

use super::Case;
use super::models::{DOMAIN, before, changed, function, input_of};

/// A model in which nodes that may read the input make the value `large`, which is used.
fn computed(
    item: &'static str,
    name: &str,
    said: &str,
    nodes: impl Fn(&str) -> Vec<NodeProto> + 'static,
) -> Case {
    changed(item, name, said, move |model| {
        let graph = model.graph.as_mut().unwrap();
        let input = input_of(graph);
        let mut nodes = nodes(&input);
        nodes.push(
            NodeProto::new("ReduceMax", &["large"], &["most"]).with(AttributeProto::int("keepdims", 0)),
        );
        nodes.push(NodeProto::new("Add", &[&input, "most"], &["changed"]));
        before(graph, nodes);
        model.functions.push(function(PASSES, &["Relu"]));
        model.opset_import.push(OperatorSetIdProto::new(DOMAIN, 1));
    })
}

/// A function of every model here, which passes its input on.
const PASSES: &str = "passes";

fn constant(name: &str, values: &[i64]) -> NodeProto {
    let value = TensorProto::from_values("", &[values.len()], values);
    NodeProto::new("Constant", &[], &[name]).with(AttributeProto::tensor("value", value))
}

fn scalar(name: &str, value: f32) -> NodeProto {
    let value = TensorProto::scalar("", value);
    NodeProto::new("Constant", &[], &[name]).with(AttributeProto::tensor("value", value))
}

/// A matrix of ones.
fn ones(name: &str, dims: [i64; 2]) -> [NodeProto; 2] {
    filled(name, &dims)
}

/// A tensor of ones.
fn filled(name: &str, dims: &[i64]) -> [NodeProto; 2] {
    let sizes = format!("dims of {name}");
    let one = AttributeProto::tensor("value", TensorProto::from_values("", &[1], &[1.0_f32]));
    [constant(&sizes, dims), NodeProto::new("ConstantOfShape", &[&sizes], &[name]).with(one)]
}

/// Models of a few kilobytes that would keep a machine for hours, or years.
pub fn long() -> Vec<Case> {
    let case = |name: &str, nodes: fn(&str) -> Vec<NodeProto>| {
        computed("little that computes for long", name, "multiplications than", nodes)
    };
    vec![
        case("products", |_| {
            let products = (0..100).map(|index| {
                let [from, to] = [index, index + 1]
                    .map(|index| if index == 100 { "large".to_owned() } else { format!("p{index}") });
                NodeProto::new("MatMul", &[&from, "p0"], &[&to])
            });
            ones("p0", [2048, 2048]).into_iter().chain(products).collect()
        }),
        case("an einsum", |_| {
            let equation = AttributeProto::string("equation", "ij,jk,kl->il");
            let product = NodeProto::new("Einsum", &["p", "p", "p"], &["large"]).with(equation);
            ones("p", [4096, 4096]).into_iter().chain([product]).collect()
        }),
        case("a convolution", |input| {
            let kernel = constant("kernel's dims", &[1, 16, 499, 499]);
            let weight = NodeProto::new("ConstantOfShape", &["kernel's dims"], &["kernel"]);
            let pads = AttributeProto::ints("pads", &[499; 4]);
            vec![kernel, weight, NodeProto::new("Conv", &[input, "kernel"], &["large"]).with(pads)]
        }),
        // Left to a runtime.
        case("a pooling", |input| {
            let pads = constant("pads", &[0, 0, 0, 0, 0, 0, 500, 500]);
            let padded = NodeProto::new("Pad", &[input, "pads"], &["padded"]);
            let pooled = NodeProto::new("MaxPool", &["padded"], &["large"])
                .with(AttributeProto::ints("kernel_shape", &[250, 250]));
            vec![pads, padded, pooled]
        }),
        // Each element that a kernel reads is in a line of its own.
        case("a convolution of one column", |_| {
            let lines = [constant("from", &[1, 1, 1 << 16, 1]), constant("to", &[1, 1, 1024, 1])];
            let full = [("from", "values"), ("to", "kernel")]
                .map(|(dims, name)| NodeProto::new("ConstantOfShape", &[dims], &[name]));
            let convolved = (0..200).map(|index| {
                NodeProto::new("Conv", &["values", "kernel"], &[&format!("convolved {index}")])
                    .with(AttributeProto::ints("pads", &[512, 0, 512, 0]))
            });
            let most = NodeProto {
                input: (0..200).map(|index| format!("convolved {index}")).collect(),
                ..NodeProto::new("Max", &[], &["large"])
            };
            lines.into_iter().chain(full).chain(convolved).chain([most]).collect()
        }),
        // Names are looked up, also those of empty tensors.
        case("sums of nothing in a loop", |_| {
            let sum = NodeProto {
                input: vec!["value".to_owned(); 20_000],
                ..NodeProto::new("Sum", &[], &["next"])
            };
            let looping = repeated(sum, &["next"]);
            filled("start", &[0]).into_iter().chain(looping).collect()
        }),
        case("matrices of nothing", |_| {
            let [left, right] = [filled("left", &[1 << 22, 1, 0]), filled("right", &[1 << 22, 0, 1])];
            let products = (0..400).map(|index| {
                let name = if index == 0 { "large".to_owned() } else { format!("p{index}") };
                NodeProto::new("MatMul", &["left", "right"], &[&name])
            });
            left.into_iter().chain(right).chain(products).collect()
        }),
        case("a loop", |_| {
            let add = NodeProto::new("Add", &["value", "value"], &["next"]);
            let looping = repeated(add, &["next"]);
            ones("start", [2048, 2048]).into_iter().chain(looping).collect()
        }),
        case("calls with attributes", |_| {
            let mut calling = NodeProto::new(PASSES, &["value"], &["next"]).in_domain(DOMAIN);
            calling.attribute = (0..2500).map(|index| AttributeProto::int(&index.to_string(), 1)).collect();
            let looping = repeated(calling, &["next"]);
            ones("start", [1, 1]).into_iter().chain(looping).collect()
        }),
    ]
}

/// So many numbers.
fn numbers(graph: &mut GraphProto, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|index| format!("c{index}")).collect();
    graph.initializer.extend(names.iter().map(|name| TensorProto::scalar(name, 1.0)));
    names
}

/// A model without a layer, of one input and one output.
fn plain(name: &str, change: fn(&mut ModelProto)) -> Case {
    changed("little that computes for long", name, "", move |model| {
        let port =
            |name: &str| vec![ValueInfoProto::tensor(name, DataType::Float, [2.into(), 3.into(), 5.into()])];
        let graph = GraphProto { input: port("x"), output: port("y"), ..GraphProto::default() };
        *model = ModelProto::new(graph, 17).importing(DOMAIN, 1);
        change(model);
    })
}

/// One that a runtime is given only after its bounds of slices were looked for. What is said of it is not tested.
pub fn bounds() -> Vec<Case> {
    vec![plain("lists of nothing", |model| {
        let graph = model.graph.as_mut().unwrap();
        graph.node.push(constant("0", &[]));
        for index in 1..14 {
            let (from, to) = ((index - 1).to_string(), index.to_string());
            let joined = NodeProto::new("Concat", &[from.as_str(); 6], &[&to]);
            graph.node.push(joined.with(AttributeProto::int("axis", 0)));
        }
        graph.node.push(NodeProto::new("Slice", &["x", "13", "13"], &["y"]));
    })]
}

/// Models that ask for nothing but that each of their many parts is looked at. What is said of them is not tested.
pub fn wide() -> Vec<Case> {
    vec![
        plain("a sum", |model| {
            let graph = model.graph.as_mut().unwrap();
            let mut input = numbers(graph, 100_000);
            input.push("x".to_owned());
            graph.node.push(NodeProto { input, ..NodeProto::new("Sum", &[], &["y"]) });
        }),
        plain("what a branch reads", |model| {
            let graph = model.graph.as_mut().unwrap();
            let names = numbers(graph, 30_000);
            let transposed =
                NodeProto::new("Transpose", &["x"], &["t"]).with(AttributeProto::ints("perm", &[0, 2, 1]));
            let read =
                names.iter().map(|name| NodeProto::new("Identity", &[name], &[&format!("own {name}")]));
            let branch = GraphProto {
                node: read.chain([transposed, NodeProto::new("MatMul", &["x", "t"], &["p"])]).collect(),
                output: vec![ValueInfoProto::of_any_shape("p", DataType::Float)],
                ..GraphProto::default()
            };
            let condition = TensorProto::from_values("condition", &[], &[true]);
            graph.initializer.push(condition);
            let choosing = NodeProto::new("If", &["condition"], &["y"])
                .with(AttributeProto::graph("then_branch", branch.clone()))
                .with(AttributeProto::graph("else_branch", branch));
            graph.node.push(choosing);
        }),
        plain("functions of layers", |model| {
            let mut calling = function("CovariancePooling", &["f0"]);
            calling.domain = Some(isqrt_cov_op::DOMAIN.to_owned());
            model.functions.push(calling);
            model.functions.extend((0..4000).map(|index| function(&format!("f{index}"), &["Relu"])));
            let graph = model.graph.as_mut().unwrap();
            // No two of them are alike.
            graph.node.extend((0..4000).map(|index| {
                let epsilon = AttributeProto::float("epsilon", 1e-3 + 1e-6 * index as f32);
                let to = if index == 0 { "y".to_owned() } else { format!("y{index}") };
                NodeProto::new("CovariancePooling", &["x"], &[&to])
                    .in_domain(isqrt_cov_op::DOMAIN)
                    .with(epsilon)
            }));
        }),
    ]
}

/// A loop of 400,000 iterations, from the value `start`; what `node` calls `next` comes out as `large`, and the other
/// values that are put out are collected.
fn repeated(node: NodeProto, put_out: &[&str]) -> Vec<NodeProto> {
    let port = |name: &str, element| ValueInfoProto::of_any_shape(name, element);
    let outputs = put_out.iter().map(|name| port(name, DataType::Float));
    let body = GraphProto {
        name: Some("body".to_owned()),
        node: vec![NodeProto::new("Identity", &["again"], &["still"]), node],
        input: vec![
            port("iteration", DataType::Int64),
            port("again", DataType::Bool),
            port("value", DataType::Float),
        ],
        output: std::iter::once(port("still", DataType::Bool)).chain(outputs).collect(),
        ..GraphProto::default()
    };
    let mut looping =
        NodeProto::new("Loop", &["times", "", "start"], &["large"]).with(AttributeProto::graph("body", body));
    looping.output.extend((1..put_out.len()).map(|index| format!("collected {index}")));
    vec![
        constant("many", &[400_000]),
        NodeProto::new("ReduceMax", &["many"], &["times"]).with(AttributeProto::int("keepdims", 0)),
        looping,
    ]
}

/// Well-formed models that compute what no machine has room for. That is for the runtime to refuse; the answer may then be no,
/// with exit status 1.
pub fn large() -> Vec<Case> {
    // What is said of them is not tested.
    let item = "overflowing dimensions";
    let resized = |scale: f32| {
        computed(item, &format!("Resize by {scale}"), "", move |input| {
            let scales = TensorProto::from_values("", &[4], &[1.0, 1.0, scale, scale]);
            let scales =
                NodeProto::new("Constant", &[], &["scales"]).with(AttributeProto::tensor("value", scales));
            vec![scales, NodeProto::new("Resize", &[input, "", "scales"], &["large"])]
        })
    };
    let shaped = |size: i64| {
        computed(item, &format!("ConstantOfShape {size}"), "", move |_| {
            vec![constant("shape", &[size]), NodeProto::new("ConstantOfShape", &["shape"], &["large"])]
        })
    };
    let pads = [0, 0, 1 << 30, 1 << 30, 0, 0, 1 << 30, 1 << 30];
    vec![
        shaped(1 << 40),
        shaped(1 << 31),
        shaped(-1),
        computed(item, "Expand", "", |_| {
            let shape = constant("shape", &[1 << 20, 1 << 20]);
            vec![scalar("one", 1.0), shape, NodeProto::new("Expand", &["one", "shape"], &["large"])]
        }),
        computed(item, "Range", "", |_| {
            let range = NodeProto::new("Range", &["from", "to", "step"], &["large"]);
            vec![scalar("from", 0.0), scalar("to", 1e30), scalar("step", 1.0), range]
        }),
        computed(item, "Pad", "", move |input| {
            vec![constant("pads", &pads), NodeProto::new("Pad", &[input, "pads"], &["large"])]
        }),
        // What a runtime would do at once, since nothing of it depends on the input.
        computed(item, "Tile", "", |_| {
            let many = constant("many", &[1 << 15, 1 << 15]);
            let tiled = NodeProto::new("Tile", &["one", "many"], &["large"]);
            ones("one", [1, 1]).into_iter().chain([many, tiled]).collect()
        }),
        computed(item, "MatMul", "", |_| {
            let [left, right] = [ones("left", [1 << 15, 1]), ones("right", [1, 1 << 15])];
            [&left[..], &right, &[NodeProto::new("MatMul", &["left", "right"], &["large"])]].concat()
        }),
        // What is left to a runtime.
        resized(16384.0),
        // Less than tract would refuse.
        resized(413.0),
        // A place has a number for each axis.
        computed(item, "NonZero", "", |_| {
            let dims = [&[1; 15][..], &[1 << 24]].concat();
            let places = NodeProto::new("NonZero", &["matrix"], &["large"]);
            filled("matrix", &dims).into_iter().chain([places]).collect()
        }),
        // Empty tensors take room, too.
        computed(item, "Split", "", |_| {
            let lengths = NodeProto::new("ConstantOfShape", &["dims"], &["lengths"])
                .with(AttributeProto::tensor("value", TensorProto::from_values("", &[1], &[0_i64])));
            let split = NodeProto::new("Split", &["nothing", "lengths"], &["large"]);
            let nothing = filled("nothing", &[0]);
            nothing.into_iter().chain([constant("dims", &[1 << 24]), lengths, split]).collect()
        }),
        computed(item, "Unique", "", |_| {
            let unique =
                NodeProto::new("Unique", &["nothing"], &["large"]).with(AttributeProto::int("axis", 0));
            filled("nothing", &[1 << 25, 0]).into_iter().chain([unique]).collect()
        }),
        changed(item, "inputs", "", |model| {
            let graph = model.graph.as_mut().unwrap();
            for index in 0..30 {
                let name = format!("unread {index}");
                graph.input.push(ValueInfoProto::tensor(&name, DataType::Float, [(1 << 25).into()]));
            }
        }),
        computed(item, "what a loop collects", "", |_| {
            let identity = NodeProto::new("Identity", &["value"], &["next"]);
            let looping = repeated(identity, &vec!["next"; 1500]);
            ones("start", [1, 0]).into_iter().chain(looping).collect()
        }),
        computed(item, "axes", "", |_| {
            let axes = TensorProto::from_values("", &[6000], &(0..6000).collect::<Vec<i64>>());
            let axes = NodeProto::new("Constant", &[], &["axes"]).with(AttributeProto::tensor("value", axes));
            let unsqueezed = NodeProto::new("Unsqueeze", &["matrix", "axes"], &["long"]);
            let lower = NodeProto::new("Trilu", &["long"], &["large"]);
            ones("matrix", [1024, 1024]).into_iter().chain([axes, unsqueezed, lower]).collect()
        }),
        computed(item, "as many axes as numbers", "", |_| {
            let axes = NodeProto::new("Range", &["from", "to", "step"], &["axes"]);
            let scalar = |name: &str, value: i64| {
                let value = TensorProto::scalar("", value);
                NodeProto::new("Constant", &[], &[name]).with(AttributeProto::tensor("value", value))
            };
            let unsqueezed = NodeProto::new("Unsqueeze", &["matrix", "axes"], &["large"]);
            let numbers = [scalar("from", 0), scalar("to", 1_000_000), scalar("step", 1), axes];
            numbers.into_iter().chain(ones("matrix", [1, 1])).chain([unsqueezed]).collect()
        }),
        computed(item, "ConvTranspose", "", |input| {
            let shape = constant("shape", &[16, 1, 1, 1]);
            let weight = NodeProto::new("ConstantOfShape", &["shape"], &["weight"]);
            let strides = AttributeProto::ints("strides", &[1 << 14, 1 << 14]);
            vec![shape, weight, NodeProto::new("ConvTranspose", &[input, "weight"], &["large"]).with(strides)]
        }),
    ]
}
