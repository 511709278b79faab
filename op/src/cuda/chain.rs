//! The launches of products that follow one another, and of the output: each by itself, or a sample's together.

use super::arguments::{CHAIN, Chain, Cluster, Factors, Product, TURN, Write};
use super::arithmetic::Arithmetic;
use super::plan::{Launch, Launching};
use super::real::Real;
use super::slab::{PRODUCT_THREADS, Slab, Stage, TILE, name, product_rooms, product_shared, triangle};
use crate::Error;

/// The clusters of a launch.
#[derive(Debug, Clone, Copy)]
struct Shape {
    blocks: usize,
    /// Whether a block has as many stages as one that is alone on its multiprocessor.
    alone: bool,
}

impl Slab<'_> {
    /// Products in order, and the output of the last one, in as few launches as there can be.
    pub(super) fn launch_products<R: Real>(
        &self,
        products: &[Product<R>],
        write: &Write<R>,
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        if let Some(shape) = self.shape(products, Some(write)) {
            return self.launch_cluster(products, write, shape, launch);
        }
        for group in products.chunk_by(|one, next| one.is_symmetric() && next.is_symmetric()) {
            if let [product] = group {
                self.launch_product(product, launch)?;
            } else if group.iter().all(|product| product.tiles() == 1) {
                self.launch_chain(group, launch)?;
            } else if let Some(shape) = self.shape(group, None) {
                let nothing = Write { out: 0, ..*write };
                self.launch_cluster(group, &nothing, shape, launch)?;
            } else {
                group.iter().try_for_each(|product| self.launch_product(product, launch))?;
            }
        }
        self.launch_write(write, launch)
    }

    /// The clusters in which every sample's products, and its output, can be made at a time, if there are any.
    fn shape<R: Real>(&self, products: &[Product<R>], write: Option<&Write<R>>) -> Option<Shape> {
        // An output alone gains nothing.
        if self.plan.arithmetic != Arithmetic::Halves || !(1..=CHAIN).contains(&products.len()) {
            return None;
        }
        let most = |plain: bool| {
            let counted = products.iter().filter(|product| plain || product.is_symmetric());
            counted.map(Product::tiles).chain(write.map(Write::tiles)).max().unwrap_or(0)
        };
        // A block for each tile; if need be, only the one product that is not symmetric takes its tiles in two turns.
        [true, false].into_iter().find_map(|plain| {
            let blocks = most(plain);
            let alone = self.plan.target.clusters.alone(blocks, self.samples)?;
            Some(Shape { blocks, alone })
        })
    }

    fn launch_cluster<R: Real>(
        &self,
        products: &[Product<R>],
        write: &Write<R>,
        Shape { blocks, alone }: Shape,
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let (stages, shared) = product_shared::<R>(self.plan.arithmetic, alone);
        launch(Launch {
            function: name(Stage::Cluster, self.plan.arithmetic, self.plan.element),
            blocks: self.blocks(blocks),
            cluster: blocks as u32,
            threads: PRODUCT_THREADS,
            shared: shared + TURN,
            arguments: &Cluster {
                products: staged(products, stages),
                write: write.staged(stages),
                count: products.len() as i32,
                blocks: blocks as i32,
                single: products.iter().take_while(|product| product.tiles() == 1).count() as i32,
                behind: shared as i32,
            },
        })
    }

    /// Products of matrices that are a single tile.
    fn launch_chain<R: Real>(&self, products: &[Product<R>], launch: Launching<'_>) -> Result<(), Error> {
        let blocks = self.blocks(1);
        let (stages, shared) = self.stages::<R>(blocks);
        let shared = shared.max(self.kept_shared::<R>(0));
        let with_places =
            self.kept_shared::<R>(self.plan.program.as_ref().map_or(0, |program| program.places));
        // Only where P is the chain's own product is no place made before it; and a block that is not alone leaves room for others.
        let resident = self.plan.arithmetic == Arithmetic::Halves
            && products.len() <= CHAIN
            && products.first().is_some_and(|first| first.scale != 0)
            && blocks <= self.plan.target.multiprocessors
            && with_places <= self.plan.target.shared;
        for products in products.chunks(CHAIN) {
            launch(Launch {
                function: name(Stage::Chain, self.plan.arithmetic, R::ELEMENT),
                blocks,
                cluster: 1,
                threads: PRODUCT_THREADS,
                shared: if resident { shared.max(with_places) } else { shared },
                arguments: &Chain {
                    products: staged(products, stages),
                    count: products.len() as i32,
                    resident: resident.into(),
                },
            })?;
        }
        Ok(())
    }

    /// The bytes of shared memory in which `kernels/resident.cuh` keeps factors and so many places; none for the plain arithmetic.
    fn kept_shared<R: Real>(&self, places: usize) -> u32 {
        match self.plan.arithmetic {
            Arithmetic::Plain => 0,
            Arithmetic::Halves => {
                let place = self.matrix::<R>(self.plan.parts.places, self.side(), self.side()).stride;
                product_rooms::<R>() + ((2 * TILE * TILE + places * place) * size_of::<R>()) as u32
            }
        }
    }

    /// A product by itself.
    pub(super) fn launch_product<R: Real>(
        &self,
        product: &Product<R>,
        launch: Launching<'_>,
    ) -> Result<(), Error> {
        let blocks = self.blocks(product.tiles());
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

    /// The output by itself.
    pub(super) fn launch_write<R: Real>(&self, write: &Write<R>, launch: Launching<'_>) -> Result<(), Error> {
        let blocks = self.blocks(write.tiles());
        let (stages, shared) = self.stages::<R>(blocks);
        launch(Launch {
            function: name(Stage::Write, self.plan.arithmetic, self.plan.element),
            blocks,
            cluster: 1,
            threads: PRODUCT_THREADS,
            shared,
            arguments: &write.staged(stages),
        })
    }
}

/// Up to CHAIN products, each with so many stages; the last one again where there are fewer.
fn staged<R: Real>(products: &[Product<R>], stages: i32) -> [Product<R>; CHAIN] {
    std::array::from_fn(|i| products[i.min(products.len() - 1)].staged(stages))
}

impl<R: Real> Product<R> {
    fn is_symmetric(&self) -> bool {
        self.plain == 0
    }

    /// The tiles that it has.
    fn tiles(&self) -> usize {
        let [down, across] =
            [self.factors.rows, self.factors.columns].map(|size| (size as usize).div_ceil(TILE));
        if self.is_symmetric() { triangle(down) } else { down * across }
    }

    /// The same with so many stages, ready to be launched.
    fn staged(&self, stages: i32) -> Self {
        Self { factors: Factors { stages, tiles: self.tiles() as i32, ..self.factors }, ..*self }
    }
}

impl<R: Real> Write<R> {
    fn tiles(&self) -> usize {
        triangle((self.factors.rows as usize).div_ceil(TILE))
    }

    /// The same with so many stages, ready to be launched.
    fn staged(&self, stages: i32) -> Self {
        Self { factors: Factors { stages, tiles: self.tiles() as i32, ..self.factors }, ..*self }
    }
}
