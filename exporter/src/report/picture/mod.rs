//! A subgraph as a drawing: its nodes as boxes, the data flowing from top to bottom.

mod diagram;
mod layout;

use std::fmt::Write;

use isqrt_cov_proto::onnx::NodeProto;

use self::diagram::{Diagram, Kind};
use self::layout::{HEIGHT, Layout, top};
use super::html::{Markup, escape};

/// A drawing, with what is to be said about it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The drawing.
    pub svg: Markup,
    /// What it does not show, for people; empty where it shows everything.
    pub left_out: String,
}

/// Draws the subgraph of `nodes` that computes `output` from `input`. Large ones are drawn in part.
#[must_use]
pub fn picture(nodes: &[&NodeProto], input: &str, output: &str) -> Picture {
    let diagram = Diagram::of(nodes, input, output);
    let layout = Layout::of(&diagram);
    let (width, height) = layout.size;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
         aria-label=\"Graph of {} nodes\">",
        nodes.len()
    );
    for (first, places) in &layout.routes {
        route(&mut svg, *first, places);
    }
    for (vertex, &(left, top, width)) in diagram.vertices.iter().zip(&layout.boxes) {
        let (class, text, round) = match vertex.kind {
            Kind::Port => ("port", "port-text", HEIGHT / 2.0),
            Kind::Node => ("node", "", 4.0),
            Kind::Product => ("product", "", 4.0),
            Kind::Ours => ("ours", "", 4.0),
            Kind::Fold => ("fold", "soft", 4.0),
        };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(
            svg,
            "<g><title>{}</title><rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
             height=\"{HEIGHT}\" rx=\"{round}\"/><text class=\"{text}\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text></g>",
            escape(&vertex.title),
            left + width / 2.0,
            top + HEIGHT / 2.0 + 4.0,
            escape(&vertex.label)
        );
    }
    svg.push_str("</svg>");
    Picture { svg: Markup(svg), left_out: left_out(&diagram) }
}

/// An edge that begins in row `first` and passes one place in every row, to its last.
fn route(svg: &mut String, first: usize, places: &[f64]) {
    let mut path = format!("M{:.1} {:.1}", places[0], top(first) + HEIGHT);
    let mut end = top(first) + HEIGHT;
    for (row, pair) in (first..).zip(places.windows(2)) {
        let (from, to) = (top(row) + HEIGHT, top(row + 1));
        let middle = f64::midpoint(from, to);
        let _ = write!(path, "C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {to:.1}", pair[0], pair[1], pair[1]);
        end = to;
        if row + 2 < first + places.len() {
            let _ = write!(path, "V{:.1}", to + HEIGHT);
        }
    }
    let x = places[places.len() - 1];
    let _ = writeln!(
        svg,
        "<path class=\"edge\" d=\"{path}\"/><path class=\"arrow\" d=\"M{:.1} {:.1}L{x:.1} {end:.1}L{:.1} {:.1}Z\"/>",
        x - 3.5,
        end - 6.0,
        x + 3.5,
        end - 6.0
    );
}

fn left_out(diagram: &Diagram) -> String {
    let mut parts = Vec::new();
    if diagram.hidden > 0 {
        parts.push(format!("{} nodes that compute shapes and constants", diagram.hidden));
    }
    if diagram.folded > 0 {
        parts.push(format!("{} nodes that are folded (dashed)", diagram.folded));
    }
    if parts.is_empty() { String::new() } else { format!("not drawn: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use isqrt_cov_proto::Model;

    use super::*;

    /// Every box is inside the picture and clear of the others, and no edge passes through one.
    fn check(nodes: &[&NodeProto], input: &str, output: &str) -> Diagram {
        let diagram = Diagram::of(nodes, input, output);
        let layout = Layout::of(&diagram);
        for (index, &(left, top, width)) in layout.boxes.iter().enumerate() {
            assert!(
                left >= 0.0 && left + width <= layout.size.0,
                "{index}: {left} {width} {:?}",
                layout.size
            );
            assert!(top >= 0.0 && top + HEIGHT <= layout.size.1, "{index}");
            for &(other, row, reach) in &layout.boxes[..index] {
                let apart = (row - top).abs() >= HEIGHT || other + reach <= left || left + width <= other;
                assert!(apart, "{index} overlaps");
            }
            for (first, places) in &layout.routes {
                let passing = places.iter().enumerate().skip(1).take(places.len() - 2);
                for (step, &x) in passing {
                    let here = (layout::top(first + step) - top).abs() < 1.0;
                    assert!(!here || x < left || x > left + width, "an edge passes through {index}");
                }
            }
        }
        let rows: Vec<f64> = layout.boxes.iter().map(|&(_, top, _)| top).collect();
        assert!(diagram.edges.iter().all(|&(from, to)| rows[from] < rows[to]), "data flows downwards");
        diagram
    }

    #[test]
    fn exported_graphs_are_drawn_without_overlaps() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
        for name in [
            "layer/official_d16_hw7_it5_dyn18_b2",
            "layer/official_d16_hw7_it3_dyn18_noopt_b2",
            "digits/digits_isqrt_official_noDotData_dyn18_dynbatch",
            "nets/small18_stripped_noDotData_ts17_dynbatch",
        ] {
            let model = Model::load(corpus.join(format!("{name}.onnx"))).unwrap();
            let graph = model.proto.graph.unwrap();
            let nodes: Vec<&NodeProto> = graph.node.iter().collect();
            let diagram = check(&nodes, graph.input[0].name(), graph.output[0].name());
            let drawn =
                diagram.vertices.iter().filter(|vertex| !matches!(vertex.kind, Kind::Port | Kind::Fold));
            assert_eq!(
                drawn.count() + diagram.hidden + diagram.folded,
                nodes.len(),
                "{name}: every node is told of"
            );
        }
    }

    #[test]
    fn what_is_left_out_is_said() {
        let nodes: Vec<NodeProto> = (0..200)
            .map(|index| NodeProto::new("Relu", &[&format!("{index}")], &[&format!("{}", index + 1)]))
            .collect();
        let nodes: Vec<&NodeProto> = nodes.iter().collect();
        let drawn = picture(&nodes, "0", "200");
        assert_eq!(drawn.left_out, "not drawn: 198 nodes that are folded (dashed)");
        assert_eq!(picture(&nodes[..3], "0", "3").left_out, "");
    }

    #[test]
    fn names_are_escaped() {
        let node = NodeProto::new("<script>", &["x"], &["y"]).named("\"/><script>\u{7}");
        let svg = picture(&[&node], "x", "y").svg.0;
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;\\u{7}"), "{svg}");
    }
}
