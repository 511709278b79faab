//! Which kernels a call launches, on what. Pure arithmetic: nothing here knows a driver.

use super::arguments::{Address, Arguments};
use super::arithmetic::Arithmetic;
use super::element::ElementType;
use super::slab::{Slab, TILE};
use super::tier::Target;
use super::workspace::Workspace;
use crate::Error;
use crate::form::{Cost, Form, Programs, SMALL};
use crate::layer::{Extent, Layer, OperatorKind};
use crate::program::Program;

/// The workspace that samples may take together; those of a larger batch follow in slabs, so that memory has a bound. The slabs
/// change no bit.
const SLAB_BYTES: usize = 256 << 20;

/// A launch of a kernel on the stream of the call.
#[derive(Clone, Copy)]
pub(super) struct Launch<'a> {
    /// The kernel's name.
    pub function: &'static str,
    /// Blocks, along x.
    pub blocks: u32,
    /// How many of them, one after another, are a cluster; 1 for none.
    pub cluster: u32,
    /// Threads of a block, along x.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Its only parameter.
    pub arguments: &'a dyn Arguments,
}

/// Where a call finds its memory on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// The input's first element.
    pub input: Address,
    /// The output's.
    pub output: Address,
    /// The workspace, at a multiple of 256.
    pub workspace: Address,
}

/// What a call on inputs of one shape and type does.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What is computed,
    pub layer: Layer,
    /// on elements of this type,
    pub element: ElementType,
    /// on an input of this extent,
    pub extent: Extent,
    /// on the covariance or on the Gram matrix,
    pub form: Form,
    /// by these products; none for the covariance.
    pub program: Option<Program>,
    /// How operands are multiplied,
    pub arithmetic: Arithmetic,
    /// on which device,
    pub target: Target,
    /// and the exponents of the powers of two that the factors of each product, and those of the result, are multiplied by.
    pub exponents: Vec<[i32; 2]>,
    /// How the workspace of a slab is divided.
    pub parts: Workspace,
    /// The samples of a slab; the last one may have fewer.
    slab: usize,
}

/// The stages of all blocks of a product: a tile that the matrix has a part of costs as much as a whole one.
struct Stages;

/// The terms of a sum that a stage has.
const STAGE: f64 = 32.0;

impl Cost for Stages {
    fn product(rows: f64, columns: f64, terms: f64) -> f64 {
        let tiles = |size: f64| (size / TILE as f64).ceil();
        tiles(rows) * tiles(columns) * (terms / STAGE).ceil()
    }

    fn triangle(rows: f64, terms: f64) -> f64 {
        let tiles = (rows / TILE as f64).ceil();
        tiles * (tiles + 1.0) / 2.0 * (terms / STAGE).ceil()
    }
}

/// What launching a kernel can come to.
pub(super) type Launching<'a> = &'a mut dyn FnMut(Launch<'_>) -> Result<(), Error>;

impl Plan {
    /// The plan for an input of this extent on such a device.
    ///
    /// # Errors
    /// Sizes that no device has memory for.
    pub(super) fn new(
        layer: &Layer,
        element: ElementType,
        extent: Extent,
        target: Target,
    ) -> Result<Self, Error> {
        let (channels, positions) = (extent.channels, extent.positions);
        let too_large = || Error::Memory { operator: layer.name(), channels, positions };
        let side = channels.min(positions);
        let exact = element == ElementType::Double || side < SMALL;
        let programs = if exact { Programs::exact(layer) } else { Programs::rounded(layer) };
        let form = Form::choose::<Stages>(layer, extent, &programs);
        let program = match (layer.operator, form) {
            (OperatorKind::CovariancePooling, _) => None,
            (_, Form::Direct) => Some(programs.iterate),
            (_, Form::Gram) => Some(programs.factor),
        };
        // Kernels count in 32 bits, but for addresses.
        let tiles = channels.div_ceil(32).checked_mul(channels.max(positions).div_ceil(32));
        let side = side.checked_next_multiple_of(32).and_then(|side| side.checked_mul(side));
        let square = channels.checked_next_multiple_of(32).and_then(|side| side.checked_mul(side));
        let elements = channels
            .checked_next_multiple_of(32)
            .and_then(|channels| channels.checked_mul(positions.checked_next_multiple_of(32)?));
        let sizes = [
            elements,
            channels.checked_next_multiple_of(128),
            positions.checked_next_multiple_of(128),
            tiles,
            side,
            square,
        ];
        if sizes.into_iter().any(|size| size.is_none_or(|size| i32::try_from(size).is_err())) {
            return Err(too_large());
        }
        let arithmetic = Arithmetic::choose(layer, element, target.tier);
        let workspace = |samples| {
            Workspace::new(layer, (extent, samples), form, program.as_ref(), element, arithmetic)
                .ok_or_else(too_large)
        };
        let most =
            (SLAB_BYTES / workspace(1)?.bytes.max(1)).clamp(1, i32::MAX as usize / tiles.unwrap_or(1).max(1));
        let slabs = extent.samples.div_ceil(most).max(1);
        let slab = extent.samples.div_ceil(slabs).max(1);
        let exponents = program.as_ref().map_or_else(Vec::new, |program| arithmetic.exponents(program));
        Ok(Self {
            layer: *layer,
            element,
            extent,
            form,
            arithmetic,
            target,
            exponents,
            parts: workspace(slab)?,
            slab,
            program,
        })
    }

    /// The bytes on the device that the call works in.
    pub(super) fn workspace(&self) -> usize {
        self.parts.bytes
    }

    /// Hands over every launch, in order.
    ///
    /// # Errors
    /// What a launch came to.
    pub(super) fn launch(&self, addresses: Addresses, launch: Launching<'_>) -> Result<(), Error> {
        for first in (0..self.extent.samples).step_by(self.slab) {
            let samples = self.slab.min(self.extent.samples - first);
            let Extent { channels, positions, .. } = self.extent;
            let input = first * channels * positions * self.element.bytes();
            let output = first * self.layer.output_elements(channels) * self.element.bytes();
            let addresses = Addresses {
                input: addresses.input + input as Address,
                output: addresses.output + output as Address,
                ..addresses
            };
            let slab = Slab { plan: self, addresses, samples };
            match self.element {
                ElementType::Double => slab.launch::<f64>(launch)?,
                _ => slab.launch::<f32>(launch)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplications alone would take the Gram matrix of 196 positions, which has as many tiles as the covariance of 256 channels.
    #[test]
    fn a_form_costs_the_tiles_that_it_has() {
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let form = |channels, positions| {
            let extent = Extent { samples: 1, channels, positions };
            Form::choose::<Stages>(&layer, extent, &Programs::rounded(&layer))
        };
        assert_eq!(form(256, 196), Form::Direct);
        assert_eq!(form(256, 192), Form::Gram);
        assert_eq!(form(256, 49), Form::Gram);
        assert_eq!(form(512, 196), Form::Gram);
        assert_eq!(form(128, 196), Form::Direct);
    }
}
