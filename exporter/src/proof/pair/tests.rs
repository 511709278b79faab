//! What is run of two models, and what comes of it.

use anyhow::ensure;
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::*;
use crate::data::Samples;
use crate::runtime::tract::Tract;
use crate::tensor::{ElementType, Tensor};

/// What a model multiplies the sum of an input of these sizes by: the candidate, or the reference.
type Factor = fn(bool, &[usize]) -> Result<f64>;

struct Stub {
    factor: Factor,
    by_node: Option<bool>,
}

struct Ready {
    factor: f64,
    by_node: bool,
}

impl Runtime for Stub {
    fn name(&self) -> String {
        "a stub".to_owned()
    }

    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let is_candidate = model.producer_name() == "candidate";
        let factor = (self.factor)(is_candidate, &shapes[0])?;
        Ok(Box::new(Ready { factor, by_node: self.by_node == Some(is_candidate) }))
    }
}

impl Session for Ready {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let sum: f64 = inputs[0].to_f64().iter().sum();
        Ok(vec![Tensor::from_f64(ElementType::F32, &[1], &[self.factor * sum])])
    }

    fn is_by_node(&self) -> bool {
        self.by_node
    }
}

/// Compares models of an input of so many samples, or any number, with 8 channels and two open axes.
fn compared(samples: Option<usize>, stub: &Stub) -> Result<Proof> {
    let samples = samples.map_or_else(|| "n".into(), Into::into);
    let graph = GraphProto {
        input: vec![ValueInfoProto::tensor(
            "x",
            DataType::Float,
            [samples, 8.into(), "h".into(), "w".into()],
        )],
        output: vec![ValueInfoProto::tensor("y", DataType::Float, [1.into()])],
        ..GraphProto::default()
    };
    let [reference, candidate] = ["reference", "candidate"].map(|name| {
        let (name, graph) = (Some(name.to_owned()), Some(graph.clone()));
        Arc::new(ModelProto { producer_name: name, graph, ..ModelProto::default() })
    });
    let plan = Plan { seeds: 3, tolerance: None, samples: None, shapes: None };
    Pair::of(&reference, &candidate, stub, &plan)?.compare(&plan, &Progress::hidden())
}

fn stub(factor: Factor) -> Stub {
    Stub { factor, by_node: None }
}

#[test]
fn models_are_run_at_sizes_that_give_numbers() {
    let sizes = |samples, factor| -> Vec<Vec<usize>> {
        let proof = compared(samples, &stub(factor)).unwrap();
        assert_eq!(proof.failure, None);
        proof.cases.iter().map(|case| [0, 2, 3].map(|axis| case.shapes[0][axis]).to_vec()).collect()
    };
    assert_eq!(sizes(None, |_, _| Ok(1.0)), [[1, 14, 14], [2, 14, 14], [5, 14, 14], [1, 14, 21]]);
    let square: Factor = |_, dims| {
        ensure!(dims[2] == dims[3], "other sizes");
        Ok(1.0)
    };
    assert_eq!(sizes(None, square)[3], [1, 21, 21]);
    let only: Factor = |_, dims| {
        ensure!(dims[2] == 14 && dims[3] == 14, "other sizes");
        Ok(1.0)
    };
    assert_eq!(sizes(None, only).len(), 3);
    let says = |factor| {
        let notes = compared(None, &stub(factor)).unwrap().notes;
        notes.iter().any(|note| note.contains("runs at [[1, 8, 14, 14]] only"))
    };
    assert!(says(only) && !says(square));
    // Windows and patches take multiples.
    let multiples: Factor = |_, dims| {
        ensure!(dims[2] % 14 == 0 && dims[3] % 14 == 0, "no whole number of windows");
        Ok(1.0)
    };
    assert_eq!(sizes(None, multiples)[3], [1, 14, 28]);
    let multiples: Factor = |_, dims| {
        ensure!(dims[2] % 14 == 0 && dims[2] == dims[3], "no whole number of windows");
        Ok(1.0)
    };
    assert_eq!(sizes(None, multiples)[3], [1, 28, 28]);
    // Positions that are called samples: one of them shows nothing, two do.
    let positions: Factor = |_, dims| Ok(if dims[0] == 1 { 0.0 } else { 1.0 });
    assert_eq!(sizes(None, positions)[0], [1, 14, 14]);
    // Neither zeros nor what is no number shows anything.
    let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { 0.0 });
    assert_eq!(sizes(None, later)[0], [1, 7, 7]);
    let later: Factor = |_, dims| Ok(if dims[2] < 14 { 1.0 } else { f64::NAN });
    assert_eq!(sizes(None, later)[0], [1, 7, 7]);
    // What is larger than usual is tried last.
    let large: Factor = |_, dims| {
        ensure!(dims[2] > 299, "the kernel reaches beyond the input");
        Ok(1.0)
    };
    assert_eq!(sizes(None, large)[3], [1, 512, 768]);
    let held: Factor = |_, dims| {
        ensure!(dims[0] == 4, "another number of samples");
        Ok(1.0)
    };
    assert_eq!(sizes(Some(4), held), [[4, 14, 14], [4, 14, 21]]);
    let refused = |factor| compared(None, &stub(factor)).unwrap_err().to_string();
    assert!(refused(|_, _| Ok(0.0)).contains("gives 0 throughout for each of 14, 7, 32, 64, 1: no proof"));
    assert!(
        refused(|_, _| Ok(f64::NAN)).contains("gives no numbers for any of 14, 7, 32, 64, 1, 128, 512 in")
    );
    assert!(refused(|_, _| anyhow::bail!("broken")).contains("gives no numbers for any of"));
    let alone: Factor = |_, dims| {
        ensure!(dims[0] == 1, "one sample only");
        Ok(0.0)
    };
    assert!(refused(alone).contains("gives 0 throughout for each of 14, 7, 32, 64, 1: no proof"));
}

#[test]
fn what_differs_at_twice_the_size_is_not_proven() {
    let windows: Factor = |is_candidate, dims| {
        ensure!(dims[2] % 14 == 0 && dims[3] % 14 == 0, "no whole number of windows");
        Ok(if is_candidate && dims[3] > 14 { 2.0 } else { 1.0 })
    };
    let proof = compared(None, &stub(windows)).unwrap();
    assert!(proof.failure.unwrap().contains("output `y`"));
}

#[test]
fn every_run_is_counted_and_what_is_left_out_is_told() {
    let all = compared(None, &stub(|_, _| Ok(1.0))).unwrap();
    assert_eq!((all.runs, &all.batches[..], all.notes.len()), (3 + 2 + 2 + 2, &[1, 2, 5][..], 0));
    let few: Factor = |is_candidate, dims| {
        ensure!(is_candidate || dims[0] < 5, "too many");
        Ok(1.0)
    };
    let few = compared(None, &stub(few)).unwrap();
    assert_eq!((few.failure.is_none(), &few.batches[..]), (true, &[1, 2][..]));
    assert!(few.notes[0].contains("left out: the reference does not run on [[5, 8, 14, 14]]"));
    for candidate in [false, true] {
        let by_node = compared(None, &Stub { factor: |_, _| Ok(1.0), by_node: Some(candidate) }).unwrap();
        assert!(by_node.notes[0].contains("they ran node by node"), "{candidate}");
    }
}

#[test]
fn a_candidate_that_does_not_run_ends_the_proof() {
    let never: Factor = |is_candidate, _| {
        ensure!(!is_candidate, "unknown operator");
        Ok(1.0)
    };
    let never = compared(None, &stub(never)).unwrap();
    assert!(never.not_run && never.failure.unwrap().contains("does not load on [[1, 8, 14, 14]]"));
    let later: Factor = |is_candidate, dims| {
        ensure!(!is_candidate || dims[0] != 2, "two are too many");
        Ok(1.0)
    };
    let later = compared(None, &stub(later)).unwrap();
    assert_eq!((later.not_run, &later.batches[..]), (false, &[1][..]), "some were compared");
    assert!(later.failure.unwrap().contains("does not load on [[2, 8, 14, 14]]"));
}

#[test]
fn outputs_are_compared_with_those_of_their_names() {
    // a = x, once or several times, and b = x · x.
    let model = |outputs: [&str; 2], parts: &[&str]| {
        let concatenated = NodeProto::new("Concat", parts, &["a"]).with(AttributeProto::int("axis", 0));
        let graph = GraphProto {
            node: vec![concatenated, NodeProto::new("Mul", &["x", "x"], &["b"])],
            input: vec![ValueInfoProto::tensor("x", DataType::Float, [2.into(), 3.into()])],
            output: outputs.map(|name| ValueInfoProto::of_any_shape(name, DataType::Float)).to_vec(),
            ..GraphProto::default()
        };
        Arc::new(ModelProto::new(graph, 17))
    };
    let plan = Plan { seeds: 1, tolerance: None, samples: None, shapes: None };
    let runtime = Tract::new();
    let failure = |candidate: &Arc<ModelProto>| {
        let reference = model(["a", "b"], &["x"]);
        let pair = Pair::of(&reference, candidate, &runtime, &plan).unwrap();
        pair.compare(&plan, &Progress::hidden()).unwrap().failure
    };
    assert_eq!(failure(&model(["b", "a"], &["x"])), None);
    let of_other_shape = failure(&model(["a", "b"], &["x", "x"])).unwrap();
    assert!(
        of_other_shape.contains("`a` is float [2, 3] in the reference and float [4, 3]"),
        "{of_other_shape}"
    );
}

/// Of what divides by 255 first, ordinary numbers show nothing: its outputs hardly depend on them.
#[test]
fn images_are_tried_as_they_are_before_they_are_normalized() {
    // y = 1 + the mean of `factor` · x / 255.
    let model = |factor: f32, dims: &[usize], element: DataType| {
        let number = |name: &str, value: f32| TensorProto::from_values(name, &[], &[value]);
        let all: Vec<i64> = (1..dims.len() as i64).collect();
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Cast", &["x"], &["wide"])
                    .with(AttributeProto::int("to", DataType::Float as i64)),
                NodeProto::new("Div", &["wide", "most"], &["normal"]),
                NodeProto::new("Mul", &["normal", "factor"], &["scaled"]),
                NodeProto::new("ReduceMean", &["scaled"], &["mean"]).with(AttributeProto::ints("axes", &all)),
                NodeProto::new("Add", &["mean", "one"], &["y"]),
            ],
            initializer: vec![number("most", 255.0), number("factor", factor), number("one", 1.0)],
            input: vec![ValueInfoProto::tensor("x", element, dims.iter().map(|&dim| dim.into()))],
            output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
            ..GraphProto::default()
        };
        Arc::new(ModelProto::new(graph, 17))
    };
    let plan = Plan { seeds: 3, tolerance: None, samples: None, shapes: None };
    let runtime = Tract::new();
    let both = |factors: [f32; 2], dims: &[usize], element| {
        let [reference, candidate] = factors.map(|factor| model(factor, dims, element));
        let pair = Pair::of(&reference, &candidate, &runtime, &plan).unwrap();
        let proof = pair.compare(&plan, &Progress::hidden()).unwrap();
        (proof.failure.is_none(), proof.runs, proof.notes)
    };
    let compared = |factor, dims: &[usize], element| both([1.0, factor], dims, element);
    for dims in [[4, 3, 8, 8], [4, 8, 8, 1]] {
        let (passes, runs, _) = compared(1.02, &dims, DataType::Float);
        assert_eq!((passes, runs), (false, 3 + IMAGES));
        assert_eq!(compared(1.0, &dims, DataType::Float), (true, 3 + IMAGES, vec![]));
    }
    // What is no image, or too coarse for such numbers, is only told.
    for (dims, element) in [(&[4, 12, 16][..], DataType::Float), (&[4, 3, 8, 8], DataType::Float16)] {
        let (passes, runs, notes) = compared(1.02, dims, element);
        assert_eq!((passes, runs, notes.len()), (true, 3, 1));
        assert!(notes[0].contains("output `y` varies by") && notes[0].contains("proves little"), "{notes:?}");
    }
    // Outputs that vary prove enough without.
    assert_eq!(both([1e4, 1e4], &[4, 3, 8, 8], DataType::Float), (true, 3, vec![]));
}

/// A length of 0 is none: of integers that the user's data hold no others are made up.
#[test]
fn integers_are_made_up_of_those_of_the_data() {
    // y = x / n, and the same with n limited to 1 and more.
    let model = |least: Option<i64>| {
        let limited = NodeProto::new("Max", &["n", "least"], &["m"]);
        let least = TensorProto::from_values("least", &[], &[least.unwrap_or(i64::MIN)]);
        let graph = GraphProto {
            node: vec![
                limited,
                NodeProto::new("Cast", &["m"], &["wide"])
                    .with(AttributeProto::int("to", DataType::Float as i64)),
                NodeProto::new("Div", &["x", "wide"], &["y"]),
            ],
            initializer: vec![least],
            input: vec![
                ValueInfoProto::tensor("x", DataType::Float, ["n".into(), 8.into()]),
                ValueInfoProto::tensor("n", DataType::Int64, ["n".into(), 1.into()]),
            ],
            output: vec![ValueInfoProto::of_any_shape("y", DataType::Float)],
            ..GraphProto::default()
        };
        Arc::new(ModelProto::new(graph, 17))
    };
    let (reference, candidate) = (model(None), model(Some(1)));
    let runtime = Tract::new();
    let compared = |samples: Option<Samples>| {
        let plan = Plan { seeds: 9, tolerance: None, samples, shapes: None };
        let pair = Pair::of(&reference, &candidate, &runtime, &plan).unwrap();
        pair.compare(&plan, &Progress::hidden()).unwrap().failure
    };
    assert!(compared(None).unwrap().contains("differs by inf"));
    let inputs =
        vec![Tensor::zeros(ElementType::F32, &[2, 8]), Tensor::I64(ndarray::arr2(&[[5], [9]]).into_dyn())];
    let samples = Samples { inputs, count: 2, per_row: 1, expected: None, labels: None, unused: Vec::new() };
    assert_eq!(compared(Some(samples)), None);
}
