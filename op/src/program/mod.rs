//! The Newton–Schulz polynomial as a straight-line program of matrix products.
//!
//! K coupled steps from Y₀ = A, Z₀ = I compute Y_K = A q(A) with one polynomial,
//!
//! ```text
//! q = t₀ t₁ … t_{K−1},    t_k = (3 − m_k)/2,    m₀ = A,    m_{k+1} = m_k t_k²
//! ```
//!
//! so that any program for q computes the layer, and every matrix in it is a polynomial in A: symmetric, and commuting
//! with the others. Y is always made from A itself: other ways to write it lose the small eigenvalues.

mod fitted;

/// c₀ I + Σ c_i B_i over matrices B_i.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Combination {
    /// c₀.
    pub identity: f64,
    /// The matrices' places and their factors c_i.
    pub terms: Vec<(usize, f64)>,
}

/// The product of two combinations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Product {
    /// The left factor.
    pub left: Combination,
    /// The right factor; none where the left one is squared.
    pub right: Option<Combination>,
}

/// A way to compute q(A) or A q(A). The matrix A is in place 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// The products and the places that they go to. A place may be one that the product reads.
    pub products: Vec<(Product, usize)>,
    /// The result.
    pub result: Outcome,
    /// The number of places.
    pub places: usize,
}

/// The result of a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// q(A).
    Factor(Combination),
    /// A q(A), as one more product.
    Iterate(Product),
}

/// What a program is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// q(A).
    Factor,
    /// A q(A).
    Iterate,
}

impl Program {
    /// K steps exactly, for any A.
    ///
    /// The m_k are carried on by themselves: made from Y and Z they are unstable when products are made symmetric by
    /// computing one triangle, because an error in Y then comes back multiplied by Z's condition.
    pub(crate) fn exact(iterations: u32, target: Target) -> Self {
        let mut program = Builder::default();
        // m_k, and the product of A (for an iterate) and the steps so far; none while that is the identity.
        let mut m = 0;
        let mut result = match target {
            Target::Iterate => Some(matrix(0)),
            Target::Factor => None,
        };
        let mut done = 0;
        loop {
            let steps = if iterations - done >= 2 {
                done += 2;
                // Two steps at once: t_k t_{k+1} = [(m² − 4.5 m + 3.375)² − 8.625 m + 24.609375] / 16.
                let square = program.square(matrix(m));
                let inner = program.square(combination(3.375, &[(square, 1.0), (m, -4.5)]));
                combination(24.609_375 / 16.0, &[(inner, 1.0 / 16.0), (m, -8.625 / 16.0)])
            } else {
                done += 1;
                combination(1.5, &[(m, -0.5)])
            };
            if done == iterations && target == Target::Iterate {
                let left = result.unwrap_or_else(|| matrix(0));
                return program.finish(Outcome::Iterate(Product { left, right: Some(steps) }));
            }
            let first = m == 0;
            let next = match &result {
                None => steps.clone(),
                Some(result) => matrix(program.product(result.clone(), steps.clone())),
            };
            if done == iterations {
                return program.finish(Outcome::Factor(next));
            }
            // m t² as (m t) t in the beginning, where the iterate that has just been made is m t.
            m = if first && target == Target::Iterate {
                program.product(next.clone(), steps)
            } else {
                let square = program.square(steps);
                program.product(matrix(m), matrix(square))
            };
            result = Some(next);
        }
    }

    /// K steps to float32 rounding for A whose eigenvalues lie in [0, 1], if there is a program for this K.
    pub(crate) fn fitted(iterations: u32, target: Target) -> Option<Self> {
        let find = |target| {
            let mut programs = fitted::PROGRAMS.iter();
            programs.find(|program| program.iterations == iterations && program.target() == target)
        };
        // Where an iterate has no program of its own, A times the factor is as good.
        let fitted = find(target).or_else(|| find(Target::Factor))?;
        let mut program = Builder::default();
        let mut places = vec![0, program.square(matrix(0))];
        let expand = |coefficients: &[f32], places: &[usize]| {
            let mut coefficients = coefficients.iter().copied().map(f64::from);
            let identity = coefficients.next().unwrap_or_default();
            let terms = places.iter().copied().zip(coefficients).filter(|&(_, factor)| factor != 0.0);
            Combination { identity, terms: terms.collect() }
        };
        for (left, right) in fitted.products {
            let left = expand(left, &places);
            let right = right.map(|right| expand(right, &places));
            places.push(program.push(Product { left, right }));
        }
        let result = match (fitted.result, target) {
            (Some(q), Target::Factor) => Outcome::Factor(expand(q, &places)),
            (Some(q), Target::Iterate) => {
                Outcome::Iterate(Product { left: matrix(0), right: Some(expand(q, &places)) })
            }
            (None, _) => Outcome::Iterate(program.products.pop()?),
        };
        Some(program.finish(result))
    }

    /// The factors of product `step`; after all products, what the result is made of.
    pub(crate) fn factors(&self, step: usize) -> [Option<&Combination>; 2] {
        match (self.products.get(step), &self.result) {
            (Some((product, _)), _) | (None, Outcome::Iterate(product)) => {
                [Some(&product.left), product.right.as_ref()]
            }
            (None, Outcome::Factor(q)) => [Some(q), None],
        }
    }

    /// The greatest magnitudes of the factors of each product, and of those of the result, for eigenvalues of A in [0, 1].
    pub(crate) fn magnitudes(&self) -> Vec<[f64; 2]> {
        const STEPS: u32 = 1000;
        let mut greatest = vec![[0.0_f64; 2]; self.products.len() + 1];
        let mut matrices = vec![0.0; self.places];
        for step in 0..=STEPS {
            matrices[0] = f64::from(step) / f64::from(STEPS);
            for (number, greatest) in greatest.iter_mut().enumerate() {
                let factors = self.factors(number).map(|factor| factor.map(|factor| factor.at(&matrices)));
                for (greatest, factor) in greatest.iter_mut().zip(factors) {
                    *greatest = greatest.max(factor.unwrap_or_default().abs());
                }
                if let Some((_, place)) = self.products.get(number) {
                    let [left, right] = factors;
                    let left = left.unwrap_or_default();
                    matrices[*place] = left * right.unwrap_or(left);
                }
            }
        }
        greatest
    }

    /// Whether any product whose number has this parity (the result counts as the one after the last) has a left factor, and whether any
    /// has a right one.
    pub(crate) fn has_factors(&self, parity: usize) -> [bool; 2] {
        let steps = (0..=self.products.len()).filter(|step| step % 2 == parity);
        steps.fold([false; 2], |[left, right], step| {
            let factors = self.factors(step);
            [left || factors[0].is_some(), right || factors[1].is_some()]
        })
    }

    /// Whether factors after those of product `next` are made of the matrix that is in `place` before that product.
    pub(crate) fn is_read_later(&self, place: usize, next: usize) -> bool {
        for step in next..self.products.len() {
            // The product's own matrix is in its place when the factors after it are made.
            if self.products[step].1 == place {
                return false;
            }
            let mut factors = self.factors(step + 1).into_iter().flatten();
            if factors.any(|factor| factor.terms.iter().any(|&(read, _)| read == place)) {
                return true;
            }
        }
        false
    }

    /// The matrix products of the program, the last one of an iterate included.
    pub(crate) fn product_count(&self) -> usize {
        self.products.len() + usize::from(matches!(self.result, Outcome::Iterate(_)))
    }
}

fn matrix(place: usize) -> Combination {
    combination(0.0, &[(place, 1.0)])
}

fn combination(identity: f64, terms: &[(usize, f64)]) -> Combination {
    Combination { identity, terms: terms.to_vec() }
}

/// A program each of whose products has a place of its own.
#[derive(Default)]
struct Builder {
    products: Vec<Product>,
}

impl Builder {
    fn push(&mut self, product: Product) -> usize {
        self.products.push(product);
        self.products.len()
    }

    fn product(&mut self, left: Combination, right: Combination) -> usize {
        self.push(Product { left, right: Some(right) })
    }

    fn square(&mut self, left: Combination) -> usize {
        self.push(Product { left, right: None })
    }

    /// Lets a product take the place of a matrix that nothing reads any more.
    fn finish(self, mut result: Outcome) -> Program {
        let count = self.products.len();
        let mut last_use = vec![0; count + 1];
        let mut products = self.products;
        for (time, product) in products.iter_mut().enumerate() {
            product.for_each_place(&mut |place| last_use[*place] = time);
        }
        result.for_each_place(&mut |place| last_use[*place] = count);

        let mut place_of = vec![0];
        let mut free = Vec::new();
        let mut places = 1;
        for (time, product) in products.iter_mut().enumerate() {
            let free_now = (0..=time).filter(|&value| last_use[value] == time).map(|value| place_of[value]);
            free.extend(free_now);
            product.for_each_place(&mut |place| *place = place_of[*place]);
            place_of.push(free.pop().unwrap_or_else(|| {
                places += 1;
                places - 1
            }));
        }
        result.for_each_place(&mut |place| *place = place_of[*place]);
        Program { products: products.into_iter().zip(place_of.into_iter().skip(1)).collect(), result, places }
    }
}

impl Combination {
    /// The combination of 1×1 matrices.
    fn at(&self, matrices: &[f64]) -> f64 {
        self.identity + self.terms.iter().map(|&(place, factor)| factor * matrices[place]).sum::<f64>()
    }
}

impl Product {
    fn for_each_place(&mut self, visit: &mut impl FnMut(&mut usize)) {
        let right = self.right.iter_mut().flat_map(|right| &mut right.terms);
        self.left.terms.iter_mut().chain(right).for_each(|(place, _)| visit(place));
    }
}

impl Outcome {
    fn for_each_place(&mut self, visit: &mut impl FnMut(&mut usize)) {
        match self {
            Self::Factor(q) => q.terms.iter_mut().for_each(|(place, _)| visit(place)),
            Self::Iterate(product) => product.for_each_place(visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Product {
        fn at(&self, matrices: &[f64]) -> f64 {
            let left = self.left.at(matrices);
            left * self.right.as_ref().map_or(left, |right| right.at(matrices))
        }
    }

    impl Program {
        /// The program on the 1×1 matrix a.
        fn at(&self, a: f64) -> f64 {
            let mut matrices = vec![f64::NAN; self.places];
            matrices[0] = a;
            for (product, place) in &self.products {
                matrices[*place] = product.at(&matrices);
            }
            match &self.result {
                Outcome::Factor(q) => q.at(&matrices),
                Outcome::Iterate(product) => product.at(&matrices),
            }
        }
    }

    /// y and z of the coupled iteration from y = a, z = 1: z is q(a) before the last step's rounding.
    fn iterate(a: f64, iterations: u32) -> (f64, f64) {
        (0..iterations).fold((a, 1.0), |(y, z), _| {
            let t = 0.5 * (3.0 - z * y);
            (y * t, t * z)
        })
    }

    fn eigenvalues() -> impl Iterator<Item = f64> {
        (0..=4000).map(|i| f64::from(i) / 4000.0).chain((1..60).map(|i| 0.5_f64.powi(i)))
    }

    #[test]
    fn exact_programs_are_the_iteration() {
        for iterations in 1..=25 {
            let factor = Program::exact(iterations, Target::Factor);
            let root = Program::exact(iterations, Target::Iterate);
            for a in eigenvalues() {
                let (y, z) = iterate(a, iterations);
                assert!((factor.at(a) - z).abs() <= 1e-13 * z.abs(), "K = {iterations}, a = {a}");
                assert!((root.at(a) - y).abs() <= 1e-13 * y.abs(), "K = {iterations}, a = {a}");
            }
        }
    }

    #[test]
    fn five_steps_take_ten_products_exactly() {
        for target in [Target::Factor, Target::Iterate] {
            assert_eq!(Program::exact(5, target).product_count(), 10, "{target:?}");
        }
        // An even number of steps has none that is taken alone.
        assert_eq!(Program::exact(4, Target::Iterate).product_count(), 7);
    }

    /// However many steps there are: what a product no longer reads makes room for the next.
    #[test]
    fn places_are_used_again() {
        for (target, places) in [(Target::Factor, 4), (Target::Iterate, 3)] {
            assert_eq!(Program::exact(100, target).places, places, "{target:?}");
        }
    }

    #[test]
    fn exact_programs_hold_outside_the_unit_interval() {
        for iterations in 1..=6 {
            for a in [-1.5, -0.3, 1.7, 2.9] {
                let (y, _) = iterate(a, iterations);
                let found = Program::exact(iterations, Target::Iterate).at(a);
                assert!((found - y).abs() <= 1e-12 * y.abs(), "K = {iterations}, a = {a}: {found} for {y}");
            }
        }
    }

    /// K, the target, the products of the program, and what it may be off by.
    const FITTED: [(u32, Target, usize, f64); 16] = [
        (3, Target::Factor, 4, 1e-7),
        (3, Target::Iterate, 4, 1e-7),
        (4, Target::Factor, 4, 1.6e-7),
        (4, Target::Iterate, 5, 1e-7),
        (5, Target::Factor, 5, 1e-7),
        (5, Target::Iterate, 5, 2e-7),
        (6, Target::Factor, 6, 1e-7),
        (6, Target::Iterate, 6, 1e-7),
        (7, Target::Factor, 7, 1e-7),
        (7, Target::Iterate, 7, 1e-7),
        (8, Target::Factor, 8, 1e-7),
        (8, Target::Iterate, 8, 1e-7),
        (9, Target::Factor, 9, 1e-7),
        (9, Target::Iterate, 9, 1e-7),
        (10, Target::Factor, 10, 2e-7),
        (10, Target::Iterate, 10, 1e-7),
    ];

    #[test]
    fn fitted_programs_agree_with_the_iteration_to_float32_rounding() {
        for (iterations, target, products, tolerance) in FITTED {
            let program = Program::fitted(iterations, target).unwrap();
            assert_eq!(program.product_count(), products, "K = {iterations}, {target:?}");
            assert!(products <= Program::exact(iterations, target).product_count());
            for a in eigenvalues() {
                let (y, z) = iterate(a, iterations);
                let exact = if target == Target::Factor { z } else { y };
                let found = program.at(a);
                assert!((found - exact).abs() <= tolerance * exact, "K = {iterations}, {target:?}, a = {a}");
            }
        }
    }

    #[test]
    fn every_fitted_program_is_listed() {
        for iterations in 0..=30 {
            for target in [Target::Factor, Target::Iterate] {
                let listed = FITTED.iter().any(|&(k, of, ..)| (k, of) == (iterations, target));
                assert_eq!(Program::fitted(iterations, target).is_some(), listed, "K = {iterations}");
            }
        }
    }

    #[test]
    fn iterates_keep_small_eigenvalues() {
        for fitted in &fitted::PROGRAMS {
            let of_a = fitted.products.iter().all(|(left, _)| left[0] == 0.0);
            assert!(of_a || fitted.target() == Target::Factor, "K = {}", fitted.iterations);
        }
    }
}
