//! How much evaluations compute: a file of a kilobyte may ask for any number of multiplications.

use std::cell::Cell;

use anyhow::{Result, ensure};
use isqrt_cov_proto::onnx::ModelProto;
use prost::Message;

/// Multiplications that any model may ask for: some seconds of a processor.
const FREE: u64 = 1 << 35;

/// Multiplications beside them for each byte of the model. Four bytes are a weight, which a network uses at up to 10⁶ positions.
const EACH_BYTE: u64 = 1 << 18;

/// Multiplications beside them for N·C³ of an input [N, C, …]. A layer that stands alone has no weights; to look for it is to
/// evaluate it nine times, with three products of C×C matrices a step.
const EACH_CUBE: u64 = 1 << 9;

/// The most that this adds: a layer of 2048 channels and five steps takes half of it.
const CUBES: u64 = 1 << 42;

/// Multiplications beside them for each element of an input.
const EACH_INPUT: u64 = 1 << 13;

/// The most that is added for values inside of a model, whose shapes a file of a kilobyte may make of nothing.
const CUBES_INSIDE: u64 = 1 << 41;

/// What an element that is read or made counts as: memory is slow.
const ELEMENT: u64 = 64;

/// What a node counts as, whatever it makes.
const NODE: u64 = 1 << 13;

/// What is left where there is no budget.
const UNBOUNDED: u64 = u64::MAX;

thread_local! {
    /// Multiplications that evaluations in this thread may still make; 0 once one has asked for more.
    static LEFT: Cell<u64> = const { Cell::new(UNBOUNDED) };
    /// What was left when this budget was set: it never grows beyond.
    static AROUND: Cell<u64> = const { Cell::new(UNBOUNDED) };
    /// What was added to it for values inside of the model.
    static ADDED: Cell<u64> = const { Cell::new(0) };
}

/// Does `work`, in which all evaluations together make no more multiplications than so many, nor than are left around it.
pub fn within<T>(multiplications: u64, work: impl FnOnce() -> T) -> T {
    let around = LEFT.get();
    let given = multiplications.min(around);
    LEFT.set(given);
    let before = (AROUND.replace(around), ADDED.replace(0));
    let done = work();
    AROUND.set(before.0);
    ADDED.set(before.1);
    let spent = given.saturating_sub(LEFT.get());
    LEFT.set(if around == UNBOUNDED { UNBOUNDED } else { around - spent });
    done
}

/// Multiplications that are left.
#[cfg(test)]
pub(crate) fn left() -> u64 {
    LEFT.get()
}

/// Does `work` within half of what is left, and no more than so many multiplications: it must not use up what others need.
pub(crate) fn within_half<T>(multiplications: u64, work: impl FnOnce() -> T) -> T {
    within(multiplications.min(LEFT.get() / 2), work)
}

/// Does `work` within what `model` may ask for with inputs of these shapes, unless a budget is around already.
pub(crate) fn at_most_of_model<'d, T>(
    model: &ModelProto,
    shapes: impl IntoIterator<Item = &'d [usize]>,
    work: impl FnOnce() -> T,
) -> T {
    if LEFT.get() == UNBOUNDED { within(of_model(model, shapes), work) } else { work() }
}

/// The multiplications that a model may ask for with inputs of these shapes.
pub(crate) fn of_model<'d>(model: &ModelProto, shapes: impl IntoIterator<Item = &'d [usize]>) -> u64 {
    let (mut cubes, mut elements) = (0, 0);
    for dims in shapes {
        cubes = cube(dims).saturating_add(cubes);
        elements = product(dims).saturating_add(elements);
    }
    let bytes = model.encoded_len() as u64;
    [
        bytes.saturating_mul(EACH_BYTE),
        cubes.saturating_mul(EACH_CUBE).min(CUBES),
        elements.saturating_mul(EACH_INPUT),
    ]
    .into_iter()
    .fold(FREE, u64::saturating_add)
}

/// Adds what a layer takes that reads a value of this shape, beyond what was added for the largest before, unless too much was
/// asked for already.
pub(crate) fn add_for(dims: &[usize]) {
    let (left, wanted) = (LEFT.get(), cube(dims).saturating_mul(EACH_CUBE).min(CUBES_INSIDE));
    let more = wanted.saturating_sub(ADDED.get());
    if left > 0 && more > 0 {
        ADDED.set(wanted);
        LEFT.set(left.saturating_add(more).min(AROUND.get()));
    }
}

/// N·C³ of a shape [N, C, …], in which any axis may be that of the channels.
fn cube(dims: &[usize]) -> u64 {
    let Some((&samples, rest)) = dims.split_first() else { return 0 };
    let channels = rest.iter().copied().max().unwrap_or(0);
    product(&[samples, channels, channels, channels])
}

/// Takes as many multiplications from what is left as the product of `factors`.
pub(crate) fn spend(factors: &[usize]) -> Result<()> {
    take(product(factors))
}

/// Takes what a node costs beside its multiplications, with so many elements read or made.
pub(crate) fn spend_node(elements: usize) -> Result<()> {
    take((elements as u64).saturating_mul(ELEMENT).saturating_add(NODE))
}

/// Whether an evaluation has asked for more than was left, so that nothing more is of use.
pub(crate) fn is_spent() -> bool {
    LEFT.get() == 0
}

/// An error where an evaluation has asked for more than was left.
pub(crate) fn check() -> Result<()> {
    ensure!(
        !is_spent(),
        "the model asks for more multiplications than are made for one of its size: about {:.0e}, {:.0e} \
         a byte, and what a layer of its inputs takes; fix open axes of its inputs at small sizes, or cut out the part with the layer",
        FREE as f64,
        EACH_BYTE as f64
    );
    Ok(())
}

fn take(count: u64) -> Result<()> {
    LEFT.set(LEFT.get().saturating_sub(count));
    check()
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_within_is_missing_around() {
        let two = [2, 50];
        within(1000, || {
            within(300, || spend(&two).unwrap());
            within(150, || {
                spend(&two).unwrap();
                // Once too much was asked for, nothing is left here.
                assert!(spend(&two).is_err() && spend(&[1]).is_err() && check().is_err());
            });
            check().unwrap();
            assert_eq!(LEFT.get(), 1000 - 100 - 150);
            within(UNBOUNDED, || assert!(spend(&[2000]).is_err()));
            add_for(&[1, 2]);
            assert!(check().is_err());
        });
        assert_eq!(LEFT.get(), UNBOUNDED);
    }

    #[test]
    fn what_is_added_is_no_more_than_is_left_around() {
        within(10_000, || {
            within(10, || {
                add_for(&[1, 2, 1]);
                assert_eq!(LEFT.get(), 10 + 8 * EACH_CUBE);
                // Less than that.
                add_for(&[3, 1, 1]);
                assert_eq!(LEFT.get(), 10 + 8 * EACH_CUBE);
                add_for(&[2, 16]);
                assert_eq!(LEFT.get(), 10_000);
            });
        });
    }

    #[test]
    fn a_layer_may_ask_for_what_its_channels_take() {
        let model = ModelProto::default();
        let of = |dims: &[usize]| of_model(&model, [dims]);
        // A scalar is one element.
        assert_eq!(of(&[]), FREE + EACH_INPUT);
        assert_eq!(of(&[2, 512, 7, 7]), FREE + EACH_CUBE * 2 * (1 << 27) + EACH_INPUT * 2 * 512 * 49);
        assert_eq!(of(&[2, 4096, 0]), FREE + CUBES);
    }
}
