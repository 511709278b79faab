//! What calls refuse, and what they take.

use super::super::product::Portable;
use super::*;

#[test]
fn empty_batches_and_impossible_workspaces_are_no_panic() {
    let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
    kernel.run::<f32>(&[], &[0, 3, 4], &mut [], &Threads(2)).unwrap();
    kernel.run::<f16>(&[], &[0, 1 << 20, 1 << 20], &mut [], &Serial).unwrap();
    assert!(kernel.run::<f32>(&[], &[0, 3], &mut [], &Serial).is_err());
    assert!(kernel.run::<f32>(&[], &[1, usize::MAX, 4], &mut [], &Serial).is_err());
    let mut layer = Layer::new(OperatorKind::IsqrtCov);
    layer.epsilon = 1e-3;
    let call = Call {
        layer: &layer,
        extent: crate::layer::Extent { samples: 1, channels: 1 << 33, positions: 1 },
        programs: &Programs::exact(&layer),
        form: Form::Direct,
    };
    assert_eq!(call.workspace::<f32, Portable, 16>(), None);
    // As many as an output of which can be counted; no memory holds what they are computed in.
    let channels = u32::MAX as usize;
    let refused = Kernel::new(layer).run::<f32>(&[], &[0, channels, 1], &mut [], &Serial).unwrap_err();
    assert!(matches!(refused, Error::Memory { channels: c, positions: 1, .. } if c == channels), "{refused}");
}

#[test]
fn tensors_of_other_sizes_than_the_shape_says_are_refused() {
    let runs = |input: usize, output: usize| {
        let run = move || {
            let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
            kernel.run(&vec![1.0_f32; input], &[2, 3, 4], &mut vec![0.0; output], &Serial)
        };
        std::panic::catch_unwind(run).is_ok()
    };
    assert!(runs(24, 12));
    for (input, output) in [(12, 12), (36, 12), (24, 6), (24, 18)] {
        assert!(!runs(input, output), "{input} {output}");
    }
}

#[test]
#[allow(clippy::float_cmp)]
fn operations_are_counted_of_the_products_that_run() {
    fn of<T: Element>(channels: usize, positions: usize) -> f64 {
        let kernel = Kernel::new(Layer::new(OperatorKind::IsqrtCov));
        kernel.operations::<T>(&[7, channels, positions]).unwrap()
    }
    // The covariance and as many products, one triangle of each; in the other form G, q, the whole of q X̄ᵀ, and X̄ times that.
    let direct = |c: f64, m: f64, products: f64| c * c * m + products * c * c * c;
    let gram = |c: f64, m: f64, products: f64| m * m * c + products * m * m * m + 2.0 * c * m * m + c * c * m;
    // Five steps are ten products exactly, and five to float32 rounding, which matrices of some rows are worth.
    assert_eq!(of::<f64>(64, 100), direct(64.0, 100.0, 10.0));
    assert_eq!(of::<f32>(64, 100), direct(64.0, 100.0, 5.0));
    assert_eq!(of::<f32>(64, 12), gram(64.0, 12.0, 5.0));
    assert_eq!(of::<f32>(64, 11), gram(64.0, 11.0, 10.0));
    assert_eq!(of::<f16>(12, 100), direct(12.0, 100.0, 5.0));
    assert_eq!(of::<f16>(11, 100), direct(11.0, 100.0, 10.0));
}
