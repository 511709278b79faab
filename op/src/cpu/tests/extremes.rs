//! Inputs and attributes at the edge of what a type holds.

use super::*;

/// What the layer gives for one sample of this shape.
fn output<T: Element>(layer: Layer, input: &[f64], dims: &[usize]) -> Vec<f64> {
    let input: Vec<T> = input.iter().map(|&value| T::from_f64(value)).collect();
    let bits = bits(&Kernel::new(layer), &input, dims, &Serial);
    bits.into_iter().map(f64::from_bits).collect()
}

#[test]
fn the_frobenius_norm_is_taken_at_every_scale_of_float64() {
    let mut random = Random(11);
    for (channels, positions) in [(32, 20), (12, 50), (20, 300)] {
        let x = sample(&mut random, channels, positions, 0.9);
        for centered in [true, false] {
            let mut layer = Layer::new(OperatorKind::IsqrtCov);
            (layer.normalization, layer.centered) = (Normalization::Frobenius, centered);
            let dims = [1, channels, positions];
            let expected = output::<f64>(layer, &x, &dims);
            for exponent in [-900, -300, -260, 250, 260, 300, 480, 900] {
                let scale = 2.0_f64.powi(exponent);
                let scaled: Vec<f64> = x.iter().map(|value| value * scale).collect();
                let expected: Vec<f64> = expected.iter().map(|entry| entry * scale).collect();
                assert_eq!(output::<f64>(layer, &scaled, &dims), expected, "{dims:?}, 2^{exponent}, {layer}");
            }
        }
    }
}
