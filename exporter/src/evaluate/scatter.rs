//! Elements written over others at given places.

use anyhow::{Context, Result, bail, ensure};

use super::call::Call;
use super::indexing::{offsets, place};
use super::value::{Array, Data, Dense, array, flat};

/// What becomes of the old element and the new one.
struct Merge {
    float: fn(f64, f64) -> f64,
    int: fn(i64, i64) -> i64,
    bool: fn(bool, bool) -> bool,
}

fn merge(call: &Call) -> Result<Merge> {
    Ok(match call.word("reduction", "none")? {
        "none" => Merge { float: |_, new| new, int: |_, new| new, bool: |_, new| new },
        "add" => Merge { float: |a, b| a + b, int: i64::wrapping_add, bool: |a, b| a || b },
        "mul" => Merge { float: |a, b| a * b, int: i64::wrapping_mul, bool: |a, b| a && b },
        "max" => Merge { float: super::elementwise::max, int: i64::max, bool: |a, b| a || b },
        "min" => Merge { float: super::elementwise::min, int: i64::min, bool: |a, b| a && b },
        other => bail!("the reduction `{other}` is not known"),
    })
}

/// `input` with runs of `length` updates merged in from each offset on.
fn merged(input: &Dense, updates: &Dense, offsets: &[usize], length: usize, merge: &Merge) -> Result<Dense> {
    fn written<T: Copy>(
        values: &Array<T>,
        updates: &Array<T>,
        offsets: &[usize],
        length: usize,
        merge: fn(T, T) -> T,
    ) -> Result<Array<T>> {
        let mut made = flat(values).into_owned();
        let updates = flat(updates);
        ensure!(updates.len() == offsets.len() * length, "there are not as many updates as places");
        for (run, &offset) in offsets.iter().enumerate() {
            for step in 0..length {
                made[offset + step] = merge(made[offset + step], updates[run * length + step]);
            }
        }
        array(values.shape(), made)
    }
    let data = match (&input.data, &updates.data) {
        (Data::Float(a), Data::Float(b)) => Data::Float(written(a, b, offsets, length, merge.float)?),
        (Data::Int(a), Data::Int(b)) => Data::Int(written(a, b, offsets, length, merge.int)?),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(written(a, b, offsets, length, merge.bool)?),
        _ => bail!("data and updates are not of one element type"),
    };
    Ok(Dense::new(input.declared, data))
}

/// Elements written by their place along an axis.
pub(super) fn elements(call: &Call) -> Result<Dense> {
    let (input, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let along = call.axis(0, input.rank())?;
    ensure!(
        indices.dims() == updates.dims(),
        "{:?} indices for {:?} updates",
        indices.dims(),
        updates.dims()
    );
    merged(input, updates, &offsets(input.dims(), indices.ints()?, along)?, 1, &merge(call)?)
}

/// Slices written by tuples of places.
pub(super) fn nd(call: &Call) -> Result<Dense> {
    let (input, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let dims = input.dims();
    let (&width, outer) = indices.dims().split_last().context("the indices have no axes")?;
    ensure!(width <= dims.len(), "indices of shape {:?} into {dims:?}", indices.dims());
    let wanted = [outer, &dims[width..]].concat();
    ensure!(updates.dims() == wanted, "updates of shape {:?} where {wanted:?} are expected", updates.dims());
    let length = dims[width..].iter().product();
    let flat_indices = flat(indices.ints()?);
    let tuples: usize = outer.iter().product();
    let mut offsets = Vec::with_capacity(tuples);
    for tuple in 0..tuples {
        let mut offset = 0;
        for (part, &dim) in dims[..width].iter().enumerate() {
            offset = offset * dim + place(flat_indices[tuple * width + part], dim)?;
        }
        offsets.push(offset * length);
    }
    merged(input, updates, &offsets, length, &merge(call)?)
}
