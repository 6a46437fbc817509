//! Builder of the statements that handle a whole batch.
//!
//! SQLite and PostgreSQL both accept row lists in `WITH v(…) AS (…)`, `UPDATE … FROM` and `RETURNING`, so one text
//! serves both. The two databases differ in how a batch is bound:
//!
//! - PostgreSQL gets one array for each column. The statement is the same for every batch size, short, and planned
//!   once.
//! - SQLite has no arrays and gets every value as a separate parameter. The batch is padded to a power of two, so that
//!   few different statements are prepared. The placeholders have no number: SQLite would treat a number as a name, and
//!   would search all names at each binding.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use uuid::Uuid;

use crate::timestamp::millis;

/// A statement under construction.
#[derive(Debug, Default)]
pub(super) struct Sql(Vec<SqlPart>);

#[derive(Debug)]
enum SqlPart {
    Text(String),
    Bound(Value),
    /// A condition: the expression before is one of these values. A repeated value changes nothing.
    OneOf(Vec<SqlValue>),
    /// A table, as columns of equal length. A repeated row changes nothing.
    Rows(Vec<Vec<SqlValue>>),
    /// The rows of `v`, each joined with the row of a table that has its key.
    Found(Lookup),
}

/// How [`SqlPart::Found`] finds the rows of a table.
#[derive(Debug)]
struct Lookup {
    table: &'static str,
    key: &'static str,
    locked: bool,
}

/// A value in a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SqlValue {
    Int(Option<i64>),
    Text(Option<String>),
    Uuid(Option<Uuid>),
    Bytes(Vec<u8>),
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self(vec![SqlPart::Text(text.to_owned())])
    }

    /// Appends text without a change.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        if let Some(SqlPart::Text(last)) = self.0.last_mut() {
            last.push_str(text);
        } else {
            self.0.push(SqlPart::Text(text.to_owned()));
        }
        self
    }

    /// Appends a placeholder for `value`.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.0.push(SqlPart::Bound(value.into()));
        self
    }

    /// Appends an assignment of `updated_at`: `now`, or one millisecond after the last change if that is later. The
    /// events of a message sort by this time.
    pub(super) fn touch(&mut self, now: DateTime<Utc>) -> &mut Self {
        let now = millis(now);
        self.push("updated_at = CASE WHEN updated_at < ")
            .bind(now)
            .push(" THEN ")
            .bind(now)
            .push(" ELSE updated_at + 1 END")
    }

    /// Appends a table of these rows: `VALUES …`, or an `unnest` of arrays. `rows` must not be empty. A row may occur
    /// twice.
    pub(super) fn rows<const N: usize>(
        &mut self,
        rows: impl ExactSizeIterator<Item = [SqlValue; N]>,
    ) -> &mut Self {
        let mut columns: Vec<Vec<SqlValue>> = vec![Vec::with_capacity(rows.len()); N];
        for row in rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.push(cell);
            }
        }
        self.0.push(SqlPart::Rows(columns));
        self
    }

    /// Appends the rows of `v`, each joined with `s`, the row of `table` that fulfils `key`, such as `s.id = v.id`. The
    /// statement makes one index lookup of the key for each row, in the order of `v`, even if the statistics about the
    /// table's size are wrong. PostgreSQL would plan a plain join as a full scan if the table was empty at the last
    /// `ANALYZE`.
    pub(super) fn found(&mut self, table: &'static str, key: &'static str) -> &mut Self {
        let locked = false;
        self.0.push(SqlPart::Found(Lookup { table, key, locked }));
        self
    }

    /// As [`found`](Self::found). A database with row locks also locks the rows, in the order of `v`.
    pub(super) fn found_and_locked(&mut self, table: &'static str, key: &'static str) -> &mut Self {
        let locked = true;
        self.0.push(SqlPart::Found(Lookup { table, key, locked }));
        self
    }

    /// Appends a condition: the expression before is one of these items. `items` must not be empty.
    pub(super) fn one_of<C: Into<SqlValue> + Clone>(&mut self, items: &[C]) -> &mut Self {
        let items = items.iter().map(|item| item.clone().into());
        self.0.push(SqlPart::OneOf(items.collect()));
        self
    }

    /// The statement in the SQL dialect of the connection's database.
    pub(super) fn on(self, connection: &impl ConnectionTrait) -> Statement {
        let backend = connection.get_database_backend();
        let written = Written::of(self, backend == DbBackend::Postgres);
        let statement = Statement::from_sql_and_values(backend, written.text, written.values);
        #[cfg(test)]
        super::plans::note(&statement);
        statement
    }
}

/// A statement while its text is written.
struct Written {
    /// Whether a batch is bound as arrays, and placeholders have numbers.
    arrays: bool,
    text: String,
    values: Vec<Value>,
}

impl Written {
    fn of(sql: Sql, arrays: bool) -> Self {
        let mut written = Self {
            arrays,
            text: String::new(),
            values: Vec::new(),
        };
        for part in sql.0 {
            match part {
                SqlPart::Text(text) => written.text.push_str(&text),
                SqlPart::Bound(value) => written.bind(value),
                SqlPart::OneOf(items) if arrays => written.arrays(" = ANY(", &[items]),
                SqlPart::Rows(columns) if arrays => {
                    written.arrays("SELECT * FROM unnest(", &columns);
                }
                SqlPart::Found(lookup) => written.found(&lookup),
                SqlPart::OneOf(items) => written.items(items),
                SqlPart::Rows(columns) => written.values(&columns),
            }
        }
        written
    }

    fn bind(&mut self, value: Value) {
        self.values.push(value);
        if self.arrays {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "${}", self.values.len());
        } else {
            self.text.push('?');
        }
    }

    fn arrays(&mut self, before: &str, columns: &[Vec<SqlValue>]) {
        self.text.push_str(before);
        for (index, column) in columns.iter().enumerate() {
            self.text
                .push_str(if index > 0 { ", CAST(" } else { "CAST(" });
            self.bind(array(column).into());
            let _ = write!(
                self.text,
                " AS {}[])",
                column.first().map_or("text", SqlValue::type_name)
            );
        }
        self.text.push(')');
    }

    /// PostgreSQL keeps the join order for a subquery with a limit, and SQLite for a `CROSS JOIN`.
    fn found(&mut self, lookup: &Lookup) {
        let Lookup { table, key, locked } = lookup;
        let lock = if *locked { " FOR UPDATE" } else { "" };
        let text = if self.arrays {
            format!(
                "v CROSS JOIN LATERAL (SELECT s.* FROM {table} s WHERE {key} LIMIT 1{lock}) AS s"
            )
        } else {
            format!("v CROSS JOIN {table} AS s ON {key}")
        };
        self.text.push_str(&text);
    }

    fn items(&mut self, mut items: Vec<SqlValue>) {
        if let Some(last) = items.last().cloned() {
            items.resize(items.len().next_power_of_two(), last);
        }
        self.text.push_str(" IN (");
        for (index, item) in items.into_iter().enumerate() {
            self.text.push_str(if index > 0 { ", " } else { "" });
            self.bind(item.into());
        }
        self.text.push(')');
    }

    fn values(&mut self, columns: &[Vec<SqlValue>]) {
        let rows = columns.first().map_or(0, Vec::len);
        self.text.push_str("VALUES ");
        for row in 0..rows.next_power_of_two() {
            self.text.push_str(if row > 0 { ", (" } else { "(" });
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    self.text.push_str(", ");
                }
                if let Some(cell) = column.get(row).or(column.last()) {
                    self.bind(cell.clone().into());
                }
            }
            self.text.push(')');
        }
    }
}

impl SqlValue {
    /// The name of the type in PostgreSQL.
    fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "bigint",
            Self::Text(_) => "text",
            Self::Uuid(_) => "uuid",
            Self::Bytes(_) => "bytea",
        }
    }

    /// Appends the value as an element of an array: see "Array Input and Output Syntax" of PostgreSQL's manual.
    fn write(&self, array: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Int(None) | Self::Text(None) | Self::Uuid(None) => array.write_str("NULL"),
            Self::Int(Some(number)) => write!(array, "{number}"),
            Self::Uuid(Some(id)) => write!(array, "{}", id.simple()),
            Self::Bytes(bytes) => {
                array.push_str("\"\\\\x");
                bytes
                    .iter()
                    .try_for_each(|byte| write!(array, "{byte:02x}"))
                    .and_then(|()| array.write_char('"'))
            }
            Self::Text(Some(text)) => {
                array.push('"');
                for piece in text.split_inclusive(['"', '\\']) {
                    let plain = piece.trim_end_matches(['"', '\\']);
                    array.push_str(plain);
                    if plain.len() < piece.len() {
                        array.push('\\');
                        array.push_str(&piece[plain.len()..]);
                    }
                }
                array.write_char('"')
            }
        };
    }
}

/// The text of a PostgreSQL array of these cells.
fn array(cells: &[SqlValue]) -> String {
    let mut array = String::with_capacity(16 * cells.len());
    array.push('{');
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            array.push(',');
        }
        cell.write(&mut array);
    }
    array.push('}');
    array
}

impl From<SqlValue> for Value {
    fn from(cell: SqlValue) -> Self {
        match cell {
            SqlValue::Int(number) => number.into(),
            SqlValue::Text(text) => text.into(),
            SqlValue::Uuid(id) => id.into(),
            SqlValue::Bytes(bytes) => bytes.into(),
        }
    }
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for SqlValue {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for SqlValue {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for SqlValue {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<Option<String>> for SqlValue {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Uuid> for SqlValue {
    fn from(id: Uuid) -> Self {
        Self::Uuid(Some(id))
    }
}

impl From<Option<Uuid>> for SqlValue {
    fn from(id: Option<Uuid>) -> Self {
        Self::Uuid(id)
    }
}

impl From<Vec<u8>> for SqlValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The condition that a message named by its id is in `phase`, written so that no index of the phase can serve it. With
/// the plain condition PostgreSQL scans the phase's whole index, dead entries included, if the statistics call that
/// index small; and the statistics may be older than the last thousands of messages.
pub(super) fn still(phase: i64) -> String {
    format!("phase + 0 = {phase}")
}

/// Cuts a batch into pieces with sizes that are powers of two, the largest first, none over `max`. Inserts cannot be
/// padded, and this division keeps the number of different INSERT statements small as well.
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
    fn sqlite_gets_every_value_and_the_last_row_again() {
        let mut sql = Sql::new("a = ");
        let rows = [1i64, 2, 3].map(|number| [number.into(), "x".into()]);
        sql.bind(7).push(" AND x").one_of(&[1i64, 2, 3]);
        sql.push(" AND (y, z) IN (")
            .rows(rows.into_iter())
            .push(")");
        let Written { text, values, .. } = Written::of(sql, false);
        assert_eq!(
            text,
            "a = ? AND x IN (?, ?, ?, ?) AND (y, z) IN (VALUES (?, ?), (?, ?), (?, ?), (?, ?))"
        );
        assert_eq!((values.len(), &values[3]), (13, &values[4]));
        assert_eq!(values[9..11], values[11..]);
    }

    #[test]
    fn postgres_gets_an_array_for_each_column() {
        let mut sql = Sql::new("a = ");
        let rows = [
            ["x".into(), 1i64.into()],
            [None::<String>.into(), 2i64.into()],
        ];
        sql.bind(7).push(" AND z").one_of(&[3i64]);
        sql.push(" AND (x, y) IN (")
            .rows(rows.into_iter())
            .push(")");
        let Written { text, values, .. } = Written::of(sql, true);
        assert_eq!(
            text,
            "a = $1 AND z = ANY(CAST($2 AS bigint[])) \
             AND (x, y) IN (SELECT * FROM unnest(CAST($3 AS text[]), CAST($4 AS bigint[])))"
        );
        assert_eq!(
            values[1..],
            ["{3}".into(), r#"{"x",NULL}"#.into(), "{1,2}".into()]
        );
    }

    #[test]
    fn a_row_is_found_by_its_key() {
        let text = |arrays: bool| {
            let mut sql = Sql::new("SELECT s.x FROM ");
            sql.found_and_locked("t", "s.id = v.id").push(" WHERE s.y");
            Written::of(sql, arrays).text
        };
        assert_eq!(
            text(true),
            "SELECT s.x FROM v CROSS JOIN LATERAL (SELECT s.* FROM t s WHERE s.id = v.id LIMIT 1 FOR UPDATE) AS s WHERE s.y"
        );
        assert_eq!(
            text(false),
            "SELECT s.x FROM v CROSS JOIN t AS s ON s.id = v.id WHERE s.y"
        );
    }

    #[test]
    fn an_array_may_hold_any_text() {
        let cells = [r#"a"b\"#, r#""\""#, "", "NULL", "{a,b}"].map(SqlValue::from);
        assert_eq!(array(&cells), r#"{"a\"b\\","\"\\\"","","NULL","{a,b}"}"#);
        assert_eq!(array(&[vec![0u8, 255].into()]), r#"{"\\x00ff"}"#);
    }
}
