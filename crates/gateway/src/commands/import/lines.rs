//! Reads the lines of an import file as messages.

use std::borrow::Cow;

use api::requests;
use domain::{
    message::{Priority, Request},
    violation::Violation,
};
use serde_json::{Map, Value, json};

use super::table;
use crate::failure::Failure;

/// The format of an import file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A table with the columns `touser` and the keys of the template.
    Csv,
    /// One message object in each line.
    Ndjson,
}

impl Form {
    /// The format that belongs to the ending of a file name.
    pub(super) fn of(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// The values for fields that a line leaves out.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    pub(super) template_id: String,
    pub(super) priority: Priority,
    pub(super) ttl: Option<u64>,
}

/// The reason for refusing a line with `dry_run`.
const DRY_RUN: &str = "dry_run must not be true: an import sends the messages in the file; remove dry_run, or check the \
                       message with POST /v1/apps/{appid}/messages";

/// One message of the file.
pub(super) struct Line<'a> {
    /// The number of the line on which the message begins, from 1, as reported to the user. A line ends with CR, LF or
    /// both.
    pub(super) number: u64,
    /// The line as written in the file, without its end.
    pub(super) text: &'a str,
    /// The bytes that identify the message: the text of an object, or the values of a row with the names of their
    /// columns.
    pub(super) identity: Cow<'a, [u8]>,
    /// The message. Error: the reason why the line is no valid message.
    pub(super) request: Result<Request, String>,
}

/// The messages of a file, in order.
pub(super) type Lines<'a> = Box<dyn Iterator<Item = Line<'a>> + Send + 'a>;

/// Reads the content of a file. Error: the file as a whole is invalid.
pub(super) fn read<'a>(form: Form, content: &'a str, fill: &'a Fill) -> Result<Lines<'a>, Failure> {
    match form {
        Form::Csv => rows(content, fill),
        Form::Ndjson => Ok(Box::new(objects(content, fill))),
    }
}

/// The first line of a file with refused lines: the head of a table.
pub(super) fn head(form: Form, content: &str) -> &str {
    match form {
        Form::Csv => content.split(['\n', '\r']).next().unwrap_or_default(),
        Form::Ndjson => "",
    }
}

fn rows<'a>(content: &'a str, fill: &'a Fill) -> Result<Lines<'a>, Failure> {
    let separator = table::separator(content);
    if let Some(line) = table::unclosed_quote(content, separator) {
        return Err(Failure::new(
            "usage",
            format!(
                "line {line}: a quote (\") has no closing quote: add the closing quote, or write \"\" for a quote inside a value; nothing was sent"
            ),
        ));
    }
    let text = content;
    let content = content.as_bytes();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .from_reader(content);
    let wrong = |words: String| Failure::new("usage", format!("line 1: {words}"));
    let head = reader.headers().map_err(|error| wrong(error.to_string()))?;
    let head: Vec<String> = head.iter().map(|name| name.trim().to_owned()).collect();
    let unclear =
        (1..head.len()).find(|at| head[*at].is_empty() || head[..*at].contains(&head[*at]));
    if let Some(at) = unclear {
        let words = format!(
            "column {} has the name `{}`, which is empty or repeated: give each column its own name",
            at + 1,
            head[at]
        );
        return Err(wrong(words));
    }
    if !head.iter().any(|name| name == "touser") {
        let words = "the column `touser` is missing: write `touser` and the keys of the template as column names, separated by `,`, `;` or tabs";
        return Err(wrong(words.into()));
    }
    let mut row = csv::StringRecord::new();
    let mut numbers = Numbers {
        content,
        at: 0,
        line: 1,
    };
    Ok(Box::new(std::iter::from_fn(move || {
        let start = offset(&reader);
        let number = numbers.of(start);
        let request = match reader.read_record(&mut row) {
            Ok(true) => Ok(message(&head, &row, fill)),
            Ok(false) => return None,
            Err(error) => Err(match error.kind() {
                csv::ErrorKind::UnequalLengths {
                    expected_len, len, ..
                } => format!("the line has {len} columns, not {expected_len}"),
                _ => error.to_string(),
            }),
        };
        let mut identity = Vec::new();
        for text in head
            .iter()
            .map(String::as_str)
            .zip(&row)
            .flat_map(<[_; 2]>::from)
        {
            identity.extend(text.len().to_be_bytes());
            identity.extend(text.as_bytes());
        }
        let whole = text.get(start..offset(&reader)).unwrap_or_default();
        Some(Line {
            number,
            text: whole.trim_matches(['\n', '\r']),
            identity: identity.into(),
            request,
        })
    })))
}

/// The number of bytes that the reader has consumed.
fn offset(reader: &csv::Reader<&[u8]>) -> usize {
    usize::try_from(reader.position().byte()).unwrap_or(usize::MAX)
}

/// Counts lines. The reader's own count stops before the blank lines that the reader skips.
struct Numbers<'a> {
    content: &'a [u8],
    at: usize,
    line: u64,
}

impl Numbers<'_> {
    /// The number of the first line with text at `byte` or later.
    fn of(&mut self, byte: usize) -> u64 {
        while let Some(next) = self.content.get(self.at)
            && (self.at < byte || matches!(next, b'\n' | b'\r'))
        {
            let is_second = *next == b'\n' && self.content[..self.at].ends_with(b"\r");
            self.line += u64::from(matches!(next, b'\n' | b'\r') && !is_second);
            self.at += 1;
        }
        self.line
    }
}

fn message(head: &[String], row: &csv::StringRecord, fill: &Fill) -> Request {
    let mut request = Request {
        template_id: fill.template_id.clone(),
        priority: fill.priority,
        ttl: fill.ttl,
        ..Request::default()
    };
    let mut data = Map::new();
    for (name, value) in head.iter().zip(row) {
        if name == "touser" {
            value.clone_into(&mut request.touser);
        } else if name == "page" {
            request.page = (!value.is_empty()).then(|| value.to_owned());
        } else {
            data.insert(name.clone(), json!({"value": value}));
        }
    }
    request.data = Some(data);
    request
}

fn objects<'a>(content: &'a str, fill: &'a Fill) -> impl Iterator<Item = Line<'a>> + Send + 'a {
    let lines = (1..).zip(content.split('\n'));
    lines
        .map(|(number, text)| (number, text.trim_ascii()))
        .filter(|(_, text)| !text.is_empty())
        .map(|(number, text)| Line {
            number,
            text,
            identity: text.as_bytes().into(),
            request: object(text.as_bytes(), fill),
        })
}

fn object(text: &[u8], fill: &Fill) -> Result<Request, String> {
    let twice = requests::repeated_fields(text);
    if !twice.is_empty() {
        return Err(told(&twice));
    }
    let mut value: Value = serde_json::from_slice(text)
        .map_err(|error| format!("the line is not JSON: {}", requests::explain_syntax(&error)))?;
    if let Some(fields) = value.as_object_mut() {
        let mut absent = |name: &str, filled: Value| {
            let field = fields.entry(name).or_insert(Value::Null);
            if field.is_null() {
                *field = filled;
            }
        };
        absent("template_id", json!(fill.template_id));
        absent("priority", json!(fill.priority));
        absent("ttl", json!(fill.ttl));
    }
    let request = requests::message(&value).map_err(|found| told(&found))?;
    if request.dry_run {
        return Err(DRY_RUN.to_owned());
    }
    Ok(request)
}

/// The faults of a line, field by field.
fn told(found: &[Violation]) -> String {
    let told = found.iter().map(|Violation { pointer, detail }| {
        format!("{} {detail}", pointer.trim_start_matches('/'))
    });
    told.collect::<Vec<_>>().join("; ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill() -> Fill {
        Fill {
            template_id: "tpl".into(),
            priority: Priority::Low,
            ttl: Some(60),
        }
    }

    fn all(form: Form, content: &str) -> Vec<(u64, Result<Request, String>)> {
        let fill = fill();
        let lines = read(form, content, &fill).unwrap();
        lines.map(|line| (line.number, line.request)).collect()
    }

    fn refused(content: &str) -> String {
        let fill = fill();
        let read = read(Form::Csv, content, &fill);
        read.err().map(|failure| failure.message).unwrap()
    }

    #[test]
    fn a_field_that_a_line_has_twice_is_refused() {
        for (line, field) in [
            (r#"{"touser": "a", "touser": "b", "data": {}}"#, "touser "),
            (
                r#"{"touser": "a", "data": {"k": {"value": 1, "value": 2}}}"#,
                "data/k/value ",
            ),
            (
                r#"{"touser": "a", "data": {}, "metadata": {"m": 1, "m": 2}}"#,
                "metadata/m ",
            ),
        ] {
            let (_, request) = all(Form::Ndjson, line).remove(0);
            let refused = request.unwrap_err();
            assert!(refused.starts_with(field), "{refused}");
        }
    }

    #[test]
    fn a_table_is_read_line_by_line() {
        let table = "\u{feff}touser, thing1,number2\no1,\"tea, \"\"green\"\"\",2\no2,two\n\no3,\"two\nlines\",3\no4,x,4\n";
        let lines = all(Form::Csv, table);
        let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 3, 5, 7]);
        let first = lines[0].1.as_ref().unwrap();
        assert_eq!(
            (first.touser.as_str(), first.template_id.as_str()),
            ("o1", "tpl")
        );
        assert_eq!(
            Value::Object(first.data.clone().unwrap()),
            json!({"thing1": {"value": "tea, \"green\""}, "number2": {"value": "2"}})
        );
        assert_eq!((first.priority, first.ttl), (Priority::Low, Some(60)));
        assert_eq!(lines[1].1, Err("the line has 2 columns, not 3".into()));
        assert!(lines[3].1.is_ok());
        let windows = all(Form::Csv, "touser,thing1\r\no1,x\r\n\r\no2\r\n\r\no3,x");
        let numbers: Vec<u64> = windows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 4, 6]);
    }

    #[test]
    fn a_line_ends_as_the_tables_rows_do() {
        for (table, expected) in [
            ("touser,thing1\ro1,one\ro2,two\ro3,three\r", vec![2, 3, 4]),
            ("touser,thing1\ro1,one\r\ro2\r\r\ro3,three", vec![2, 4, 7]),
            (
                "touser,thing1\no1,x\ro2,x\r\no3,x\n\ro4,x",
                vec![2, 3, 4, 6],
            ),
            ("touser,thing1\ro1,\"a\rb\r\nc\nd\"\ro2,x\r", vec![2, 6]),
        ] {
            let fill = fill();
            let lines: Vec<_> = read(Form::Csv, table, &fill).unwrap().collect();
            let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
            assert_eq!(numbers, expected, "{table:?}");
        }
    }

    #[test]
    fn a_row_is_known_by_its_values_under_their_names() {
        let identities = |table: &str| -> Vec<Vec<u8>> {
            let fill = fill();
            let lines = read(Form::Csv, table, &fill).unwrap();
            lines.map(|line| line.identity.into_owned()).collect()
        };
        let rows = identities("touser,thing1\no1,a\no1,\"a\"\r\no1a,\no2,a\n");
        assert_eq!(rows[0], rows[1]);
        assert!(rows[0] != rows[2] && rows[0] != rows[3] && rows[2] != rows[3]);
        assert_ne!(identities("touser,thing2\no1,a\n")[0], rows[0]);
    }

    #[test]
    fn a_table_wants_named_columns() {
        assert!(refused("openid,thing1\no1,x\n").contains("touser"));
        assert!(refused("touser,thing1,thing1\n").contains("column 3"));
        assert!(refused("touser,\n").contains("column 2"));
        assert!(refused("").contains("touser"));
    }

    #[test]
    fn objects_are_filled_in() {
        let lines = all(
            Form::Ndjson,
            "{\"touser\": \"o1\", \"data\": {\"thing1\": {\"value\": \"x\"}}}\r\n\n\
             {\"touser\": \"o2\", \"template_id\": \"own\", \"priority\": \"high\", \"ttl\": 9}\n\
             {\"touser\": \"o3\", \"colour\": 1}\n[1]\nx\n\
             {\"touser\": \"o4\", \"dry_run\": true}\n{\"touser\": \"o5\", \"dry_run\": false}",
        );
        let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8]);
        let (first, second) = (lines[0].1.as_ref().unwrap(), lines[1].1.as_ref().unwrap());
        assert_eq!(
            (first.template_id.as_str(), first.priority, first.ttl),
            ("tpl", Priority::Low, Some(60))
        );
        assert_eq!(
            (second.template_id.as_str(), second.priority, second.ttl),
            ("own", Priority::High, Some(9))
        );
        let reason = |at: usize| lines[at].1.clone().unwrap_err();
        assert!(
            reason(2).starts_with("colour is not known"),
            "{}",
            reason(2)
        );
        assert!(reason(4).contains("not JSON"), "{}", reason(4));
        assert!(!reason(3).is_empty());
        assert!(reason(5).starts_with("dry_run"), "{}", reason(5));
        assert!(lines[6].1.is_ok());
    }
}
