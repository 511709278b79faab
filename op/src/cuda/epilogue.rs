//! What becomes of a new matrix: where it is kept, and the factors of the next product.

use super::arguments::{Epilogue, TERMS};
use super::real::Real;
use super::slab::Slab;
use crate::program::Program;

impl Slab<'_> {
    /// What is made of the matrix that product `step` gives, or of A where there is none.
    pub(super) fn epilogue<R: Real>(&self, program: &Program, step: Option<usize>) -> Epilogue<R> {
        let next = step.map_or(0, |step| step + 1);
        let place = step.map_or(0, |step| program.products[step].1);
        let parts = self.plan.parts.factors[next % 2];
        let side = self.side();
        let places = self.matrix::<R>(self.plan.parts.places, side, side);
        let zero = R::default();
        // Of the left factor and of the right one, each zero where it is not.
        let (mut out, mut identity, mut own) = ([0; 2], [zero; 2], [zero; 2]);
        let mut numbers = [[zero; TERMS]; 2];
        let mut places_read = Vec::new();
        let factors = program.factors(next).into_iter().zip(self.plan.exponents[next]);
        for (side, (factor, exponent)) in factors.enumerate() {
            let Some(factor) = factor else { continue };
            let scaled = |number: f64| R::from_f64(number * 2.0_f64.powi(exponent));
            out[side] = self.at(parts[side]);
            identity[side] = scaled(factor.identity);
            for &(read, number) in &factor.terms {
                if read == place {
                    own[side] = scaled(number);
                    continue;
                }
                let known = places_read.iter().position(|known| *known == read as i32);
                numbers[side][known.unwrap_or(places_read.len())] = scaled(number);
                if known.is_none() {
                    places_read.push(read as i32);
                }
            }
        }
        let terms = places_read.len();
        places_read.resize(TERMS, 0);
        Epilogue {
            places: places.address,
            place_stride: (places.stride * self.samples) as i64,
            out,
            samples: self.samples as i32,
            side: side as i32,
            ld: places.ld as i32,
            place: place as i32,
            keep: program.is_read_later(place, next).into(),
            terms: terms as i32,
            identity,
            own,
            factors: numbers,
            places_read: std::array::from_fn(|term| places_read[term]),
        }
    }
}

/// Nothing.
pub(super) fn no_epilogue<R: Real>() -> Epilogue<R> {
    let zero = R::default();
    Epilogue {
        places: 0,
        place_stride: 0,
        out: [0; 2],
        samples: 0,
        side: 0,
        ld: 0,
        place: 0,
        keep: 0,
        terms: 0,
        identity: [zero; 2],
        own: [zero; 2],
        factors: [[zero; TERMS]; 2],
        places_read: [0; TERMS],
    }
}
