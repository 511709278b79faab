//! Tables for people: columns aligned by spaces, nothing that a terminal or a log would have to draw.

/// The longest cell that the others of its column are aligned to.
const WIDEST: usize = 160;

/// `text` within a line: what would end or divide the line is written out. Names in files may hold anything, and none may
/// begin a line of its own.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\t', "\\t")
}

/// Rows of cells under headings.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| heading.to_uppercase()).collect()] }
    }

    /// A table of names and values, without headings.
    #[must_use]
    pub fn pairs() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row, which is one line whatever its cells hold.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| one_line(&cell)).into());
    }

    /// The rows so far, headings first.
    #[must_use]
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The table as text, each line ended.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).filter(|&count| count <= WIDEST).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let gap = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', gap));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["layer", "nodes"]);
        table.row(["IsqrtCov".to_owned(), "77".to_owned()]);
        table.row(["δ".to_owned(), "1".to_owned()]);
        table.row(["a\nb\tc".to_owned(), "2".to_owned()]);
        assert_eq!(table.render(), "LAYER     NODES\nIsqrtCov  77\nδ         1\na\\nb\\tc   2\n");
    }

    #[test]
    fn a_cell_of_any_length_moves_no_other() {
        let long = "x".repeat(100_000);
        let mut table = Table::pairs();
        table.row(["says".to_owned(), long.clone(), "end".to_owned()]);
        table.row(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        assert_eq!(table.render(), format!("says  {long}  end\na     b  c\n"));
    }
}
