//! The launches of products that follow one another: each by itself, or a sample's all in one.

use super::arguments::{CHAIN, Chain, Factors, PLACE, Product};
use super::arithmetic::Arithmetic;
use super::module::Module;
use super::plan::{Launch, Launching};
use super::real::Real;
use super::slab::{PRODUCT_THREADS, Slab, Stage, TILE, name, product_shared, triangle};
use super::tier::Clusters;
use crate::Error;

/// The kernel that has a cluster for each sample.
pub(super) const CLUSTER: &str = "cluster_halves";

impl Clusters {
    /// Those that the current context's device has room for; none that the driver does not know of.
    pub(super) fn of(module: &Module) -> Self {
        Self::ask(|blocks, alone| {
            let (_, shared) = product_shared::<f32>(Arithmetic::Halves, alone);
            let (cluster, shared) = (blocks as u32, shared + PLACE);
            module.clusters(CLUSTER, cluster, PRODUCT_THREADS, shared).unwrap_or(0)
        })
    }
}

impl Slab<'_> {
    /// Products in order. Where a matrix is a single tile each sample's follow one another in one launch, in a block; elsewhere in a
    /// cluster, if there is room for one for every sample.
    pub(super) fn launch_products<R: Real>(
        &self,
        products: &[Product<R>],
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let chain = self.chain::<R>();
        let chained = |product: &Product<R>| chain.is_some() && product.plain == 0;
        for group in products.chunk_by(|one, next| chained(one) && chained(next)) {
            match (group, chain) {
                ([_, _, ..], Some(chain)) => self.launch_chain(group, chain, launch)?,
                _ => group.iter().try_for_each(|product| self.launch_product(product, launch))?,
            }
        }
        Ok(())
    }

    /// The kernel that a sample's products share a launch of, if there is one for this size, and whether its blocks are alone on their multiprocessors.
    fn chain<R: Real>(&self) -> Option<(&'static str, bool)> {
        let target = &self.plan.target;
        match (self.tiles(), self.plan.arithmetic) {
            (1, arithmetic) => {
                Some((name(Stage::Chain, arithmetic, R::ELEMENT), self.blocks(1) <= target.multiprocessors))
            }
            (tiles, Arithmetic::Halves) => Some((CLUSTER, target.clusters.alone(tiles, self.samples)?)),
            (_, Arithmetic::Plain) => None,
        }
    }

    /// The tiles of a symmetric matrix, each of which takes a block.
    fn tiles(&self) -> usize {
        triangle(self.side().div_ceil(TILE))
    }

    fn launch_chain<R: Real>(
        &self,
        products: &[Product<R>],
        (function, alone): (&'static str, bool),
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let (stages, shared) = product_shared::<R>(self.plan.arithmetic, alone);
        for products in products.chunks(CHAIN) {
            let product = |i: usize| products[i.min(products.len() - 1)].staged(stages);
            launch(Launch {
                function,
                blocks: self.blocks(self.tiles()),
                cluster: self.tiles() as u32,
                threads: PRODUCT_THREADS,
                shared: shared + PLACE,
                arguments: &Chain {
                    products: std::array::from_fn(product),
                    count: products.len() as i32,
                    behind: shared as i32,
                },
            })?;
        }
        Ok(())
    }

    /// A product by itself.
    pub(super) fn launch_product<R: Real>(
        &self,
        product: &Product<R>,
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let [down, across] =
            [product.factors.rows, product.factors.columns].map(|size| (size as usize).div_ceil(TILE));
        let tiles = if product.plain == 0 { triangle(down) } else { down * across };
        let blocks = self.blocks(tiles);
        let (stages, shared) = self.stages::<R>(blocks);
        launch(Launch {
            function: name(Stage::Product, self.plan.arithmetic, R::ELEMENT),
            blocks,
            cluster: 1,
            threads: PRODUCT_THREADS,
            shared,
            arguments: &product.staged(stages),
        })
    }
}

impl<R: Real> Product<R> {
    /// The same with so many stages.
    fn staged(&self, stages: i32) -> Self {
        Self { factors: Factors { stages, ..self.factors }, ..*self }
    }
}
