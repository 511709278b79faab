//! The reference, which several comparisons run on the same inputs: each run is made once, while there is room for what it
//! gave.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use isqrt_cov_proto::onnx::{ModelProto, ValueInfoProto};

use crate::runtime::{Runtime, Session};
use crate::tensor::Tensor;

/// Bytes of inputs and outputs that are kept, at most.
const KEPT: usize = 64 << 20;

/// A runtime that remembers what one model gave.
pub(crate) struct Remembered<'a> {
    runtime: &'a dyn Runtime,
    model: &'a Arc<ModelProto>,
    runs: Rc<Runs>,
}

/// The inputs and the outputs of each run.
#[derive(Default)]
struct Runs {
    known: RefCell<Vec<(Vec<Tensor>, Vec<Tensor>)>>,
    bytes: Cell<usize>,
}

impl<'a> Remembered<'a> {
    /// A runtime that remembers what `model` gave, as long as it is the very same in memory.
    pub fn new(runtime: &'a dyn Runtime, model: &'a Arc<ModelProto>) -> Self {
        Self { runtime, model, runs: Rc::default() }
    }
}

impl Runtime for Remembered<'_> {
    fn name(&self) -> String {
        self.runtime.name()
    }

    fn advice(&self) -> &'static str {
        self.runtime.advice()
    }

    fn prepare(&self, model: &Arc<ModelProto>, shapes: &[Vec<usize>]) -> Result<Box<dyn Session>> {
        let session = self.runtime.prepare(model, shapes)?;
        if !Arc::ptr_eq(model, self.model) {
            return Ok(session);
        }
        Ok(Box::new(Remembering { session, runs: Rc::clone(&self.runs) }))
    }

    fn prepare_showing(
        &self,
        model: &Arc<ModelProto>,
        values: &[ValueInfoProto],
        shapes: &[Vec<usize>],
    ) -> Result<Box<dyn Session>> {
        self.runtime.prepare_showing(model, values, shapes)
    }
}

struct Remembering {
    session: Box<dyn Session>,
    runs: Rc<Runs>,
}

impl Session for Remembering {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if let Some(outputs) = self.runs.find(inputs) {
            return Ok(outputs);
        }
        let outputs = self.session.run(inputs)?;
        self.runs.keep(inputs, &outputs);
        Ok(outputs)
    }

    fn is_by_node(&self) -> bool {
        self.session.is_by_node()
    }
}

impl Runs {
    fn find(&self, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
        let known = self.known.borrow();
        known.iter().find(|(known, _)| known == inputs).map(|(_, outputs)| outputs.clone())
    }

    fn keep(&self, inputs: &[Tensor], outputs: &[Tensor]) {
        let bytes = self.bytes.get() + inputs.iter().chain(outputs).map(Tensor::bytes).sum::<usize>();
        if bytes <= KEPT {
            self.bytes.set(bytes);
            self.known.borrow_mut().push((inputs.to_vec(), outputs.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    /// Gives its input back, and counts its runs.
    struct Counting(Rc<Cell<usize>>);

    impl Runtime for Counting {
        fn name(&self) -> String {
            "counting".to_owned()
        }

        fn prepare(&self, _: &Arc<ModelProto>, _: &[Vec<usize>]) -> Result<Box<dyn Session>> {
            Ok(Box::new(Self(Rc::clone(&self.0))))
        }
    }

    impl Session for Counting {
        fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            self.0.set(self.0.get() + 1);
            Ok(inputs.to_vec())
        }
    }

    #[test]
    fn the_reference_runs_once_on_the_same_inputs_and_other_models_each_time() {
        let count = Rc::new(Cell::new(0));
        let runtime = Counting(Rc::clone(&count));
        let [reference, other] = [(); 2].map(|()| Arc::new(ModelProto::default()));
        let remembered = Remembered::new(&runtime, &reference);
        let inputs = |value: f64| vec![Tensor::from_f64(ElementType::F32, &[1], &[value])];
        let run = |model: &Arc<ModelProto>, value: f64| {
            let outputs = remembered.prepare(model, &[vec![1]]).unwrap().run(&inputs(value)).unwrap();
            assert_eq!(outputs, inputs(value));
            count.get()
        };
        assert_eq!([run(&reference, 1.0), run(&reference, 2.0), run(&reference, 1.0)], [1, 2, 2]);
        assert_eq!([run(&other, 1.0), run(&other, 1.0)], [3, 4]);
    }

    #[test]
    fn what_is_large_is_not_kept() {
        let runs = Runs::default();
        let tensor = |elements: usize| vec![Tensor::zeros(ElementType::F32, &[elements])];
        runs.keep(&tensor(KEPT / 4), &tensor(1));
        assert_eq!(runs.find(&tensor(KEPT / 4)), None);
        runs.keep(&tensor(2), &tensor(1));
        assert_eq!(runs.find(&tensor(2)), Some(tensor(1)));
    }
}
