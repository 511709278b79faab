//! The architectures, one a file.

mod alexnet;
mod digits;
mod gsop;
mod head;
mod resnet;
mod vgg;

use crate::recognize::Architecture;

/// Every architecture. A new one is a file here and a line in this list.
pub const ARCHITECTURES: [Architecture; 6] = [
    resnet::ARCHITECTURE,
    gsop::ARCHITECTURE,
    vgg::ARCHITECTURE,
    alexnet::ARCHITECTURE,
    digits::ARCHITECTURE,
    digits::RESIDUAL,
];
