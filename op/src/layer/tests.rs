//! Attributes and shapes, those that are refused too.

use super::*;

fn word(word: &str) -> Value {
    Value::Word(word.to_owned())
}

#[test]
fn defaults_are_the_published_layer() {
    let layer = Layer::new(OperatorKind::IsqrtCov);
    assert_eq!((layer.iterations, layer.correction, layer.epsilon), (5, 0, 0.0));
    assert!(layer.centered && layer.compensated);
    assert_eq!(layer.vectorization, Vectorization::Upper);
    assert_eq!(layer.normalization, Normalization::Trace);
}

#[test]
fn attributes_survive_the_round_trip() {
    let given = [
        ("iterations", Value::Integer(3)),
        ("vectorization", word("none")),
        ("layout", word("channels_last")),
    ];
    let layer = Layer::from_attributes("IsqrtCov", given).unwrap();
    let again = Layer::from_attributes(layer.name(), layer.attributes()).unwrap();
    assert_eq!(layer, again);
    assert_eq!(layer.iterations, 3);
    let shown = r#"IsqrtCov(iterations=3, vectorization="none", layout="channels_last")"#;
    assert_eq!(layer.to_string(), shown);
    assert_eq!(Layer::new(OperatorKind::IsqrtCov).to_string(), "IsqrtCov");
    assert_eq!(layer.layout, Layout::ChannelsLast);
    // Every attribute, none at its default.
    let changed = Layer {
        operator: OperatorKind::IsqrtCov,
        iterations: 3,
        centered: false,
        correction: 1,
        epsilon: 0.5,
        normalization: Normalization::Frobenius,
        compensated: false,
        vectorization: Vectorization::UpperColumnMajor,
        off_diagonal_scale: 2.0,
        layout: Layout::ChannelsLast,
    };
    let attributes = [
        ("iterations", Value::Integer(3)),
        ("centered", Value::Integer(0)),
        ("correction", Value::Integer(1)),
        ("epsilon", Value::Float(0.5)),
        ("normalization", word("frobenius")),
        ("compensated", Value::Integer(0)),
        ("vectorization", word("upper_column_major")),
        ("off_diagonal_scale", Value::Float(2.0)),
        ("layout", word("channels_last")),
    ];
    assert_eq!(Layer::from_attributes("IsqrtCov", attributes.clone()).unwrap(), changed);
    assert_eq!(changed.attributes(), attributes);
}

#[test]
fn wrong_attributes_are_named() {
    let error = Layer::from_attributes("IsqrtCov", [("vectorization", word("lower"))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"IsqrtCov: attribute `vectorization` is "lower"; expected one of "upper", "upper_column_major", "none""#
    );
    let error = Layer::from_attributes("MatrixSqrt", [("centered", Value::Integer(1))]).unwrap_err();
    assert!(error.to_string().contains("`centered` does not exist; expected one of iterations"), "{error}");
    let error = Layer::from_attributes("IsqrtCov", [("iterations", Value::Integer(0))]).unwrap_err();
    assert!(error.to_string().contains("is 0; expected an integer from 1"), "{error}");
    let error = Layer::from_attributes("IsqrtCov", [("epsilon", Value::Integer(0))]).unwrap_err();
    assert!(error.to_string().contains("is the integer 0; expected a finite float"), "{error}");
    for epsilon in [f32::NAN, f32::INFINITY, -1e-9] {
        assert!(
            Layer::from_attributes("IsqrtCov", [("epsilon", Value::Float(epsilon))]).is_err(),
            "{epsilon}"
        );
    }
    for (iterations, is_taken) in [(1, true), (100, true), (101, false), (-1, false)] {
        let layer = Layer::from_attributes("IsqrtCov", [("iterations", Value::Integer(iterations))]);
        assert_eq!(layer.is_ok(), is_taken, "{iterations}");
    }
    assert!(Layer::from_attributes("Isqrt", []).is_err());
}

#[test]
fn shapes_follow_the_attributes() {
    let mut layer = Layer::new(OperatorKind::IsqrtCov);
    assert_eq!(layer.output_tail(&[None, Some(256), None, None]).unwrap(), [Some(32896)]);
    assert_eq!(layer.output_tail(&[Some(2), None, Some(3)]).unwrap(), [None]);
    layer.layout = Layout::ChannelsLast;
    assert_eq!(layer.output_tail(&[None, Some(49), Some(16)]).unwrap(), [Some(136)]);
    let extent = layer.extent(&[2, 7, 7, 16]).unwrap();
    assert_eq!(extent, Extent { samples: 2, channels: 16, positions: 49 });
    assert_eq!(layer.output_dims(&[2, 7, 7, 16]).unwrap(), [2, 136]);
    assert!(layer.extent(&[2, 16]).unwrap_err().to_string().contains("[2, 16]; expected rank 3 or more"));
    layer.correction = 1;
    assert!(layer.extent(&[2, 1, 16]).unwrap_err().to_string().contains("more positions than"));
    let root = Layer::new(OperatorKind::MatrixSqrt);
    assert_eq!(root.output_tail(&[None, Some(4), Some(4)]).unwrap(), [Some(4), Some(4)]);
    // A size that is known of one axis is that of both.
    for dims in [[None, Some(4), None], [None, None, Some(4)]] {
        assert_eq!(root.output_tail(&dims).unwrap(), [Some(4), Some(4)]);
    }
}

#[test]
fn shapes_that_an_operator_does_not_take_are_refused() {
    let said = |layer: &Layer, dims: &[usize]| {
        let of_sizes = layer.extent(dims).unwrap_err();
        assert_eq!(layer.output_tail(&known(dims)).unwrap_err(), of_sizes);
        of_sizes.to_string()
    };
    let root = Layer::new(OperatorKind::MatrixSqrt);
    for dims in [&[1, 3, 4][..], &[1, 4, 3]] {
        assert!(said(&root, dims).contains("expected square matrices"), "{dims:?}");
    }
    for dims in [&[4][..], &[4, 4], &[2, 4, 4, 4]] {
        assert!(said(&root, dims).contains("expected rank 3"), "{dims:?}");
    }
    assert!(said(&root, &[1, 0, 0]).contains("at least 1 in every axis"));
    for layout in Layout::ALL {
        let layer = Layer { layout, ..Layer::new(OperatorKind::IsqrtCov) };
        for dims in [[2, 0, 16], [2, 16, 0]] {
            assert!(said(&layer, &dims).contains("at least 1 in every axis"), "{layout:?}, {dims:?}");
        }
        // An output whose elements cannot be counted.
        let large = if layout == Layout::ChannelsFirst { [1, usize::MAX, 1] } else { [1, 1, usize::MAX] };
        assert!(said(&layer, &large).contains("expected fewer channels"), "{layout:?}");
    }
}
