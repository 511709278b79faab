//! How long a model runs: several are measured in turns, so that what disturbs the one disturbs the other.

use std::time::Instant;

use anyhow::Result;

use crate::runtime::Session;
use crate::tensor::Tensor;

/// The least time that a round takes, in seconds: a hundred times what the clock and the scheduler blur.
const ROUND: f64 = 5e-3;

/// A model that is measured.
pub struct Timed {
    session: Box<dyn Session>,
    inputs: Vec<Tensor>,
    gives: Vec<Tensor>,
    repeats: u32,
    /// Seconds a run, one for each round.
    times: Vec<f64>,
}

impl Timed {
    /// A model to run on `inputs`. It runs twice here, to see how often it must run in a round.
    ///
    /// # Errors
    /// What the runtime reports.
    pub fn new(session: Box<dyn Session>, inputs: Vec<Tensor>) -> Result<Self> {
        let gives = session.run(&inputs)?;
        let start = Instant::now();
        session.run(&inputs)?;
        let repeats = (ROUND / start.elapsed().as_secs_f64().max(1e-7)).ceil() as u32;
        Ok(Self { session, inputs, gives, repeats: repeats.max(1), times: Vec::new() })
    }

    /// Its outputs.
    #[must_use]
    pub fn gives(&self) -> &[Tensor] {
        &self.gives
    }

    fn measure(&mut self) -> Result<()> {
        let start = Instant::now();
        for _ in 0..self.repeats {
            self.session.run(&self.inputs)?;
        }
        self.times.push(start.elapsed().as_secs_f64() / f64::from(self.repeats));
        Ok(())
    }

    /// Seconds that the last round took; 0 before the first.
    fn round(&self) -> f64 {
        self.times.last().map_or(0.0, |time| time * f64::from(self.repeats))
    }

    /// The time a run, in seconds, that this share of the rounds does not exceed; 0 before the first.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.times, share)
    }
}

/// The value that this `share` of the others does not exceed; where that falls between two, so far on the way from one to the
/// other. 0 where there are none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = values.len().saturating_sub(1) as f64 * share;
    let at = |place: f64| values.get(place as usize).copied().unwrap_or(0.0);
    let (below, above) = (at(place.floor()), at(place.ceil()));
    below + (above - below) * place.fract()
}

/// Runs one round of each model, then `warm_up` − 1 more that do not count either, then `rounds(s)` that do, where s is
/// the time of a round of all models in seconds; `step` is called after each of those. Returns their number.
///
/// # Errors
/// What the runtime reports.
pub fn in_turns(
    models: &mut [Timed],
    warm_up: usize,
    rounds: impl FnOnce(f64) -> usize,
    step: impl Fn(),
) -> Result<usize> {
    let mut turn = |round: usize| -> Result<f64> {
        // The order alternates, so that neither always runs in the other's wake.
        if round % 2 == 1 {
            models.iter_mut().rev().try_for_each(Timed::measure)?;
        } else {
            models.iter_mut().try_for_each(Timed::measure)?;
        }
        if round < warm_up {
            return Ok(models.iter_mut().map(|model| (model.round(), model.times.clear()).0).sum());
        }
        step();
        Ok(0.0)
    };
    let mut seconds = 0.0;
    for round in 0..warm_up {
        seconds = turn(round)?;
    }
    let rounds = rounds(seconds);
    for round in 0..rounds {
        turn(warm_up + round)?;
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        for (values, share, expected) in [
            (&[][..], 0.5, 0.0),
            (&[3.0], 0.5, 3.0),
            (&[3.0, 1.0], 0.5, 2.0),
            (&[9.0, 1.0, 2.0], 0.5, 2.0),
            (&[9.0, 1.0, 2.0, 4.0], 0.5, 3.0),
            (&[9.0, 1.0, 2.0, 4.0], 0.0, 1.0),
            (&[9.0, 1.0, 2.0, 4.0], 1.0, 9.0),
        ] {
            assert!((quantile(values, share) - expected).abs() < 1e-12, "{values:?}");
        }
    }
}
