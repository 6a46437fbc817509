//! Building the statements that handle a batch at once.
//!
//! SQLite and PostgreSQL both take `$1` placeholders, row lists in `WITH v(…) AS (VALUES …)`, `UPDATE … FROM`
//! and `RETURNING`, so one text serves both. PostgreSQL learns the types of the placeholders from the bound
//! values.

use sea_orm::{ConnectionTrait, Statement, Value};

/// A statement under construction: text with numbered placeholders, and their values.
#[derive(Debug, Default)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            values: Vec::new(),
        }
    }

    /// Appends text as it is.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder for `value`.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self
    }

    /// Appends `(…), (…)`: the rows of a `VALUES` list.
    ///
    /// The list is padded with copies of its last row to the next power of two: the database then sees few
    /// different statements and keeps them prepared. Callers use it where a repeated row changes nothing.
    pub(super) fn rows<const N: usize>(
        &mut self,
        rows: impl ExactSizeIterator<Item = [Value; N]>,
    ) -> &mut Self {
        let padded = rows.len().next_power_of_two();
        let mut last = None;
        let mut written = 0;
        for row in rows {
            last = Some(row.clone());
            self.row(row, written == 0);
            written += 1;
        }
        if let Some(last) = last {
            for _ in written..padded {
                self.row(last.clone(), false);
            }
        }
        self
    }

    /// Appends `(…)`: a padded list of single values, for `IN`.
    pub(super) fn list<V: Into<Value> + Clone>(&mut self, items: &[V]) -> &mut Self {
        self.push("(");
        for index in 0..items.len().next_power_of_two() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(items[index.min(items.len() - 1)].clone());
        }
        self.push(")")
    }

    pub(super) fn on(self, connection: &impl ConnectionTrait) -> Statement {
        Statement::from_sql_and_values(connection.get_database_backend(), self.text, self.values)
    }

    fn row<const N: usize>(&mut self, row: [Value; N], first: bool) {
        self.push(if first { "(" } else { ", (" });
        for (index, value) in row.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self.push(")");
    }
}

/// Cuts a batch into pieces whose sizes are powers of two, the largest first, none over `max`: inserts
/// cannot be padded, and this keeps their statements few as well.
pub(super) fn pieces<T>(mut batch: Vec<T>, max: usize) -> Vec<Vec<T>> {
    let mut pieces = Vec::new();
    while !batch.is_empty() {
        let size = (1 << batch.len().ilog2()).min(max);
        let rest = batch.split_off(size);
        pieces.push(std::mem::replace(&mut batch, rest));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_powers_of_two_and_keep_the_order() {
        let cut = pieces((0..300).collect(), 128);
        assert_eq!(
            cut.iter().map(Vec::len).collect::<Vec<_>>(),
            [128, 128, 32, 8, 4]
        );
        assert_eq!(cut.concat(), (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn lists_are_padded_with_their_last_item() {
        let mut sql = Sql::new("x IN ");
        sql.list(&[1i64, 2, 3]);
        assert_eq!(sql.text, "x IN ($1, $2, $3, $4)");
        assert_eq!(sql.values[2], sql.values[3]);
    }
}
