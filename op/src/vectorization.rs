//! Which entries of a symmetric matrix are written, and in which order.

/// Which entries of the matrix are written, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vectorization {
    /// The upper triangle, row by row.
    Upper,
    /// The upper triangle, column by column.
    UpperColumnMajor,
    /// The whole matrix.
    None,
}

impl Vectorization {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Upper, Self::UpperColumnMajor, Self::None];
    /// The orders of a triangle.
    pub const TRIANGLES: [Self; 2] = [Self::Upper, Self::UpperColumnMajor];

    /// The attribute's value in graphs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::UpperColumnMajor => "upper_column_major",
            Self::None => "none",
        }
    }

    /// The entries (row, column) that are written of a matrix with `side` rows, in the order in which they are written.
    pub fn entries(self, side: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..side).flat_map(move |outer| {
            let inner = match self {
                Self::None => 0..side,
                Self::Upper => outer..side,
                Self::UpperColumnMajor => 0..outer + 1,
            };
            inner.map(move |inner| match self {
                Self::UpperColumnMajor => (inner, outer),
                Self::None | Self::Upper => (outer, inner),
            })
        })
    }

    /// Where entry (row, column), row ≤ column, stands among [`entries`](Self::entries).
    #[must_use]
    pub fn position(self, side: usize, (row, column): (usize, usize)) -> usize {
        match self {
            Self::None => row * side + column,
            Self::Upper => row * side + column - row * (row + 1) / 2,
            Self::UpperColumnMajor => column * (column + 1) / 2 + row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_the_order_asked_for() {
        let entries = |order: Vectorization| order.entries(3).collect::<Vec<_>>();
        assert_eq!(entries(Vectorization::Upper), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
        assert_eq!(
            entries(Vectorization::UpperColumnMajor),
            [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
        );
        assert_eq!(entries(Vectorization::None).len(), 9);
    }

    #[test]
    fn positions_are_those_of_the_entries() {
        for order in Vectorization::ALL {
            for (position, entry) in order.entries(7).enumerate().filter(|(_, (row, column))| row <= column) {
                assert_eq!(order.position(7, entry), position, "{order:?} {entry:?}");
            }
        }
    }
}
