//! What can be told of a graph without evaluating it: of a node by itself, and of its values by the data flow.

mod calls;
mod choices;
mod decisions;
mod dominators;
mod flow;
mod nodes;
mod order;
mod reach;
mod zeros;

pub(crate) use isqrt_cov_proto::subgraphs;

pub(crate) use self::calls::{Functions, by_key, called, closed_functions, functions_with};
pub(crate) use self::decisions::is_decision;
pub(crate) use self::flow::{Around, Flow};
pub use self::nodes::holds_operator;
pub(crate) use self::nodes::{
    all_names, any_inside, asks_for_nan, captured, given, is_matrix_product, moves, multiplies, producers,
    rearranges,
};
pub(crate) use self::order::in_order;
pub(crate) use self::zeros::compares;

/// A value of the graph, by its place in [`Flow::names`].
pub(crate) type ValueId = usize;

/// A node of the graph, by its place in `graph.node`.
pub(crate) type NodeId = usize;

/// What a value depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Constants alone.
    Constant,
    /// Constants and the shapes of other values, never their elements.
    Shape,
    /// The elements of graph inputs.
    Data,
}
