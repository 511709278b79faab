//! Where the boxes of a picture stand: in rows from top to bottom, each below everything that it reads.

use super::diagram::{Diagram, Vertex};

/// Height of a box and of the gap below its row, in pixels.
pub const HEIGHT: f64 = 24.0;
const GAP: f64 = 22.0;
/// Room around the picture, and between two things in a row.
const MARGIN: f64 = 12.0;
const BETWEEN: f64 = 14.0;
/// Width of a letter, and of the room beside a label.
const LETTER: f64 = 7.3;
const PADDING: f64 = 18.0;
/// Sweeps over the rows, for their order and for the places.
const SWEEPS: usize = 24;

/// A place for every box and every edge.
#[derive(Debug)]
pub struct Layout {
    /// Width and height of the whole.
    pub size: (f64, f64),
    /// Left, top and width of each vertex's box.
    pub boxes: Vec<(f64, f64, f64)>,
    /// For each edge, the horizontal places that it passes, row by row, and the row that it begins in.
    pub routes: Vec<(usize, Vec<f64>)>,
}

/// A box, or the place where an edge passes a row.
struct Item {
    row: usize,
    width: f64,
    /// How strongly it holds on to its place: edges are to be straight before boxes are centered.
    weight: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    center: f64,
}

impl Layout {
    /// Finds the places.
    #[must_use]
    pub fn of(diagram: &Diagram) -> Self {
        let rows = rows_of(diagram);
        let mut items: Vec<Item> = diagram
            .vertices
            .iter()
            .zip(&rows)
            .map(|(vertex, &row)| Item {
                row,
                width: width(vertex),
                weight: 1.0,
                above: vec![],
                below: vec![],
                center: 0.0,
            })
            .collect();
        let chains = connect(diagram, &mut items);
        let count = rows.iter().max().map_or(0, |last| last + 1);
        let mut by_row: Vec<Vec<usize>> = vec![Vec::new(); count];
        items.iter().enumerate().for_each(|(index, item)| by_row[item.row].push(index));
        arrange(&mut items, &mut by_row);
        place(&mut items, &by_row);

        let left = items.iter().map(|item| item.center - item.width / 2.0).fold(f64::INFINITY, f64::min);
        items.iter_mut().for_each(|item| item.center += MARGIN - left);
        let right = items.iter().map(|item| item.center + item.width / 2.0).fold(0.0, f64::max);
        let vertices = items.iter().take(diagram.vertices.len());
        let boxes =
            vertices.map(|item| (item.center - item.width / 2.0, top(item.row), item.width)).collect();
        let routes = diagram.edges.iter().zip(&chains);
        let routes = routes
            .map(|(&(from, _), chain)| (rows[from], chain.iter().map(|&item| items[item].center).collect()))
            .collect();
        Self { size: (right + MARGIN, top(count) - GAP + MARGIN), boxes, routes }
    }
}

/// The upper edge of a row.
#[must_use]
pub fn top(row: usize) -> f64 {
    MARGIN + row as f64 * (HEIGHT + GAP)
}

fn width(vertex: &Vertex) -> f64 {
    vertex.label.chars().count() as f64 * LETTER + PADDING
}

/// The row of each vertex: below all that it reads, and what reads nothing just above what reads it.
fn rows_of(diagram: &Diagram) -> Vec<usize> {
    let mut rows = vec![0; diagram.vertices.len()];
    let mut fed = vec![false; rows.len()];
    fed[0] = true;
    let mut edges: Vec<(usize, usize)> = diagram.edges.iter().copied().collect();
    // By the target: every edge leads forward, so a vertex's row is settled before it is passed on.
    edges.sort_unstable_by_key(|&(from, to)| (to, from));
    for &(from, to) in &edges {
        rows[to] = rows[to].max(rows[from] + 1);
        fed[to] |= fed[from];
    }
    for vertex in (1..rows.len()).rev().filter(|&vertex| !fed[vertex]) {
        let readers = diagram.edges.range((vertex, 0)..(vertex + 1, 0)).map(|&(_, to)| rows[to]);
        rows[vertex] = readers.min().map_or(rows[vertex], |row| row - 1);
    }
    // The output stands alone at the foot.
    let last = rows.len() - 1;
    let foot = rows[..last].iter().max().map_or(0, |row| row + 1);
    rows[last] = foot;
    rows
}

/// Connects the items, with a place in every row that an edge passes; edges from one vertex share those. Returns the
/// items along each edge, its ends included.
fn connect(diagram: &Diagram, items: &mut Vec<Item>) -> Vec<Vec<usize>> {
    // The places that edges of the current source pass, row by row below it.
    let mut passed: Vec<usize> = Vec::new();
    let mut source = usize::MAX;
    let mut chains = Vec::with_capacity(diagram.edges.len());
    for &(from, to) in &diagram.edges {
        if from != source {
            source = from;
            passed.clear();
        }
        let between = items[to].row - items[from].row - 1;
        while passed.len() < between {
            let above = passed.last().copied().unwrap_or(from);
            let row = items[above].row + 1;
            items.push(Item { row, width: 2.0, weight: 8.0, above: vec![above], below: vec![], center: 0.0 });
            let new = items.len() - 1;
            items[above].below.push(new);
            passed.push(new);
        }
        let above = passed[..between].last().copied().unwrap_or(from);
        items[above].below.push(to);
        items[to].above.push(above);
        chains.push(std::iter::once(from).chain(passed[..between].iter().copied()).chain([to]).collect());
    }
    chains
}

/// Orders each row by where its neighbors stand in theirs, so that few edges cross.
fn arrange(items: &mut [Item], by_row: &mut [Vec<usize>]) {
    let mut position: Vec<f64> = vec![0.0; items.len()];
    let number = |row: &[usize], position: &mut [f64]| {
        let middle = row.len() as f64 / 2.0;
        row.iter().enumerate().for_each(|(place, &item)| position[item] = place as f64 - middle);
    };
    by_row.iter().for_each(|row| number(row, &mut position));
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> =
            if down { (0..by_row.len()).collect() } else { (0..by_row.len()).rev().collect() };
        for row in order {
            let mean = |item: usize| {
                let near = if down { &items[item].above } else { &items[item].below };
                let sum: f64 = near.iter().map(|&other| position[other]).sum();
                if near.is_empty() { position[item] } else { sum / near.len() as f64 }
            };
            by_row[row].sort_by(|&one, &other| mean(one).total_cmp(&mean(other)));
            number(&by_row[row], &mut position);
        }
    }
}

/// Moves every item towards its neighbors, as far as the others in its row allow.
fn place(items: &mut [Item], by_row: &[Vec<usize>]) {
    for sweep in 0..=SWEEPS {
        let order: Vec<usize> =
            if sweep % 2 == 0 { (0..by_row.len()).collect() } else { (0..by_row.len()).rev().collect() };
        for row in order {
            let row = &by_row[row];
            let mut offsets = Vec::with_capacity(row.len());
            let mut offset = 0.0;
            for (place, &item) in row.iter().enumerate() {
                if place > 0 {
                    offset += f64::midpoint(items[row[place - 1]].width, items[item].width) + BETWEEN;
                }
                offsets.push(offset);
            }
            let wish = |item: usize| {
                let near = items[item].above.iter().chain(&items[item].below);
                let (sum, count) =
                    near.fold((0.0, 0), |(sum, count), &other| (sum + items[other].center, count + 1));
                if count == 0 { items[item].center } else { sum / f64::from(count) }
            };
            let wishes: Vec<f64> =
                row.iter().zip(&offsets).map(|(&item, offset)| wish(item) - offset).collect();
            let weights: Vec<f64> = row.iter().map(|&item| items[item].weight).collect();
            for ((&item, start), offset) in row.iter().zip(nearest_rising(&wishes, &weights)).zip(offsets) {
                items[item].center = start + offset;
            }
        }
    }
}

/// The numbers nearest to `wishes`, by weighted least squares, of which none is less than the one before it: neighbors that
/// would have to change places take their mean.
fn nearest_rising(wishes: &[f64], weights: &[f64]) -> Vec<f64> {
    struct Block {
        mean: f64,
        weight: f64,
        count: usize,
    }
    let mut blocks: Vec<Block> = Vec::new();
    for (&mean, &weight) in wishes.iter().zip(weights) {
        let mut block = Block { mean, weight, count: 1 };
        while let Some(last) = blocks.pop_if(|last| last.mean > block.mean) {
            let weight = last.weight + block.weight;
            let mean = (last.mean * last.weight + block.mean * block.weight) / weight;
            block = Block { mean, weight, count: last.count + block.count };
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|block| std::iter::repeat_n(block.mean, block.count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_met_where_the_order_allows() {
        let even = |wishes: &[f64]| nearest_rising(wishes, &vec![1.0; wishes.len()]);
        assert_eq!(even(&[1.0, 2.0, 5.0]), [1.0, 2.0, 5.0]);
        assert_eq!(even(&[3.0, 1.0, 5.0, 2.0, 2.0]), [2.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(nearest_rising(&[3.0, 1.0], &[3.0, 1.0]), [2.5, 2.5]);
        assert!(even(&[]).is_empty());
    }
}
