//! The same sample gives the same bits, whatever else there is: other samples, other orders of blocks and threads.

use isqrt_cov_op::cuda::{ElementType, Kernel};
use isqrt_cov_op::{Layer, OperatorKind};

use crate::device::{ORDERS, bits, log, run, set_order, stream};
use crate::samples::{ELEMENTS, input, layers};

fn in_every_order(layer: &Layer, element: ElementType, size: (usize, usize, usize)) {
    let (data, dims) = input(layer, size);
    set_order(0);
    let expected = bits(*layer, element, &data, &dims);
    for order in &ORDERS[1..] {
        let order = *order;
        set_order(order);
        assert!(
            bits(*layer, element, &data, &dims) == expected,
            "{layer} of {element:?}, shape {dims:?}, order {order}"
        );
    }
    set_order(0);
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn order_of_threads_changes_no_bit() {
    for layer in layers() {
        in_every_order(&layer, ElementType::Float, (2, 33, 17));
    }
    for kind in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        for element in ELEMENTS {
            in_every_order(&Layer::new(kind), element, (1, 66, 130));
            in_every_order(&Layer::new(kind), element, (2, 70, 40));
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn other_samples_change_no_bit() {
    for kind in [OperatorKind::IsqrtCov, OperatorKind::CovariancePooling, OperatorKind::MatrixSqrt] {
        let layer = Layer::new(kind);
        for element in ELEMENTS {
            for (channels, positions) in [(40, 70), (70, 40), (70, 90)] {
                let (data, mut dims) = input(&layer, (3, channels, positions));
                let together = bits(layer, element, &data, &dims);
                dims[0] = 1;
                let alone =
                    data.chunks(data.len() / 3).flat_map(|sample| bits(layer, element, sample, &dims));
                assert!(alone.eq(together), "{layer} of {element:?}, {channels}x{positions}");
            }
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn clusters_change_no_bit() {
    let check = |layer: Layer, element: ElementType, size: (usize, usize, usize)| {
        let (data, dims) = input(&layer, size);
        let kernel = || Kernel::new(layer).expect("a device");
        let found = |kernel: &Kernel| {
            let bits = run(kernel, element, (&data, &dims), stream()).expect("the stub launches everything");
            (bits, log())
        };
        let (apart, calls) = found(&kernel());
        assert!(!calls.contains(" read_halves_") && !calls.contains(" cluster_halves_"), "{calls}");
        let (together, calls) = found(&kernel().with_clusters().expect("the context is there"));
        assert!(together == apart, "{layer} of {element:?}, {size:?}");
        calls
    };
    // All of it, all with a second turn, products but not the output, and blocks that are clusters by themselves.
    for size in [(2, 66, 130), (1, 260, 193), (1, 330, 70), (3, 64, 70)] {
        let calls = check(Layer::new(OperatorKind::IsqrtCov), ElementType::Float, size);
        let on_hopper = calls.contains(" tier 90 ");
        assert_eq!(calls.contains(" cluster_halves_f32 "), on_hopper, "{size:?}");
        // The output's tiles, of which one product has more: the sizes with which `examples/gpu.rs` and `tests/gpu/correctness.py` come to that.
        if on_hopper && size.1 == 260 {
            assert!(calls.contains(" blocks 15 clusters of 15 "), "{calls}");
        }
    }
    for layer in layers().into_iter().filter(|layer| layer.operator == OperatorKind::IsqrtCov) {
        for element in [ElementType::Float, ElementType::Float16, ElementType::BFloat16] {
            for size in [(2, 33, 17), (1, 67, 70)] {
                check(layer, element, size);
            }
        }
    }
}

#[test]
#[ignore = "run by kernels_on_the_stub"]
fn where_places_are_kept_changes_no_bit() {
    // The bytes of a block that is not alone and of one that is: two factors, and stages or the places. K = 10 takes more products than a launch.
    for (iterations, shared) in [(5, [60_416, 111_616]), (10, [60_416, 98_304])] {
        let layer = Layer { iterations, ..Layer::new(OperatorKind::IsqrtCov) };
        let kernel = Kernel::new(layer).expect("a device");
        let (data, mut dims) = input(&layer, (25, 40, 33));
        // The kernel's bits, and the shared memory that chains ask for.
        let mut found = |samples: usize| {
            dims[0] = samples;
            let sample = data.len() / 25;
            let input = (&data[..samples * sample], &dims[..]);
            let bits =
                run(&kernel, ElementType::Float, input, stream()).expect("the stub launches everything");
            let calls = log();
            let chain = calls.lines().find(|line| line.contains(" chain_halves "));
            (bits, chain.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()))
        };
        // One more than the stub has multiprocessors for, and one.
        let ((together, crowded), (alone, kept)) = (found(25), found(1));
        assert!(together.starts_with(&alone), "K = {iterations}");
        if let (Some(crowded), Some(kept)) = (crowded, kept) {
            assert_eq!([crowded, kept], shared, "K = {iterations}");
        }
    }
}
