//! Products that stay in the workspace.
#![allow(unsafe_code)]

use std::ops::Range;

use super::combine::Factors;
use super::element::Real;
use super::executor::{Executor, Order, for_each_piece, worthwhile};
use super::product::{Operand, Part, Rows, Side, Simd, Sink, first_row, product, triangle_panel};

/// How the panels of a matrix follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Panels {
    /// Each has all of this many lines.
    Whole(usize),
    /// Each has those of an upper triangle.
    Triangle,
}

impl Panels {
    /// The line at which a panel begins.
    #[inline(always)]
    fn first_line<const W: usize>(self, panel: usize) -> usize {
        match self {
            Self::Whole(lines) => panel * lines,
            Self::Triangle => triangle_panel::<W>(panel),
        }
    }
}

/// Computes a product of these rows and columns into `result`: all of it or, where its panels are those of a triangle, the
/// upper triangle. With a triangle that belongs to a program the factors of the next product are made on the way.
#[allow(clippy::too_many_arguments)]
pub(super) fn store<R: Real, S: Simd<R, W>, const W: usize, const MR: usize>(
    simd: S,
    executor: &dyn Executor,
    [left, right]: [Operand<'_, R, W>; 2],
    [rows, columns]: [Side; 2],
    panels: Panels,
    result: &mut [[R; W]],
    next: Option<&Factors<'_, R, W>>,
) {
    let entries = match panels {
        Panels::Whole(_) => rows.len * columns.len,
        Panels::Triangle => rows.len * columns.len / 2,
    };
    let executor = worthwhile(executor, entries.saturating_mul(left.rows.len));
    for_each_group::<_, S, W>(executor, columns, panels, result, &|wanted, lines| {
        simd.vectorize(
            #[inline(always)]
            || {
                let (part, end) = match panels {
                    Panels::Whole(_) => (Part::Whole, rows.padded),
                    Panels::Triangle => (Part::Upper, wanted.end * W),
                };
                let base = panels.first_line::<W>(wanted.start);
                let mut storing = Storing { simd, lines, base, panels, next };
                let rows_wanted = first_row::<MR>(rows)..end;
                product::<R, S, W, MR>(simd, left, right, part, rows, rows_wanted, wanted, &mut storing);
            },
        );
    });
}

/// Computes the upper triangle of the product of a matrix and its transpose.
pub(super) fn store_inner<R: Real, S: Simd<R, W>, const W: usize>(
    simd: S,
    executor: &dyn Executor,
    rows: Rows<'_, R, W>,
    triangle: &mut [[R; W]],
) {
    let side = rows.side;
    let executor = worthwhile(executor, (side.len * side.len / 2).saturating_mul(rows.blocks * W));
    for_each_group::<_, S, W>(executor, side, Panels::Triangle, triangle, &|wanted, mut lines| {
        for panel in wanted {
            let (first, rest) = lines.split_at_mut((panel + 1) * W);
            rows.panel(simd, panel, first);
            lines = rest;
        }
    });
}

/// What is done to some neighboring panels, with their lines.
type Work<'a, R, const W: usize> = dyn Fn(Range<usize>, &mut [[R; W]]) + Sync + 'a;

/// Gives each task the lines of some neighboring panels of a result.
fn for_each_group<R: Real, S: Simd<R, W>, const W: usize>(
    executor: &dyn Executor,
    columns: Side,
    panels: Panels,
    result: &mut [[R; W]],
    task: &Work<'_, R, W>,
) {
    let width = match executor.threads() {
        0 | 1 => columns.panels,
        threads => (columns.panels / (2 * threads)).clamp(1, S::PANELS),
    };
    let groups = columns.panels.div_ceil(width);
    let panel = |group: usize| columns.panels.saturating_sub((groups - group) * width);
    let bound = |group: usize| panels.first_line::<W>(panel(group));
    // The last panels of a triangle are the longest.
    for_each_piece(executor, result, (groups, Order::Backward), &bound, &|group, lines| {
        task(panel(group)..panel(group + 1), lines);
    });
}

/// Some panels of a product.
struct Storing<'a, R, S, const W: usize> {
    simd: S,
    /// Their lines.
    lines: &'a mut [[R; W]],
    /// The first of these lines in the whole product.
    base: usize,
    panels: Panels,
    next: Option<&'a Factors<'a, R, W>>,
}

impl<R: Real, S: Simd<R, W>, const W: usize, const MR: usize> Sink<R, W, MR> for Storing<'_, R, S, W> {
    #[inline(always)]
    fn lines<const V: usize>(&mut self, row: usize, panel: usize) -> [&mut [[R; W]; MR]; V] {
        let ranges: [Range<usize>; V] = std::array::from_fn(|v| {
            let start = self.panels.first_line::<W>(panel + v) - self.base + row;
            start..start + MR
        });
        let lines = self.lines.get_disjoint_mut(ranges).expect("panels do not overlap");
        lines.map(|lines| lines.first_chunk_mut().expect("the range has MR lines"))
    }

    #[inline(always)]
    fn filled(&mut self, row: usize, panels: Range<usize>) {
        let Some(next) = self.next else { return };
        for panel in panels {
            // SAFETY: every task has panels of its own.
            unsafe { next.tile::<S, MR>(self.simd, row, panel, (self.lines, self.base)) };
        }
    }
}
