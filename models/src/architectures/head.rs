//! What the networks have in common behind their trunks: reduction, layer, classifier.

use crate::network::{Features, Network, Vector, Window};

/// Why five steps.
pub(super) const AS_PUBLISHED: &str = "as the published models were trained";

/// The 1×1 reduction `convolution` with its batch normalization `norm` and ReLU, where the checkpoint has them.
pub(super) fn reduced(network: &mut Network<'_>, x: Features, convolution: &str, norm: &str) -> Features {
    let parts = [format!("{convolution}.weight"), format!("{norm}.weight")];
    if !parts.iter().any(|name| network.has(name)) {
        return x;
    }
    let x = network.normalized(&x, convolution, norm, Window::square(1));
    network.relu(&x)
}

/// The linear layers of the module `name`: a single one, or several in a sequence with ReLUs between.
pub(super) fn classified(network: &mut Network<'_>, x: &Vector, name: &str) {
    let places: Vec<usize> =
        (0..PLACES).filter(|place| network.has(&format!("{name}.{place}.weight"))).collect();
    for pair in places.windows(2) {
        match pair[1] - pair[0] {
            2 | 3 => network.assumes("a ReLU stands between linear layers, with or without a dropout"),
            _ => network.cannot_tell(format!(
                "the names do not tell what is computed between `{name}.{}` and `{name}.{}`",
                pair[0], pair[1]
            )),
        }
    }
    let mut scores = None;
    for place in places {
        let x = scores.take().map_or_else(|| x.clone(), |before| network.rectified(&before));
        scores = Some(network.linear(&x, &format!("{name}.{place}")));
    }
    let scores = scores.unwrap_or_else(|| network.linear(x, name));
    network.scores(&scores);
}

/// Places looked at in a sequence of modules; VGG-19 with batch normalization has 53.
pub(super) const PLACES: usize = 64;
