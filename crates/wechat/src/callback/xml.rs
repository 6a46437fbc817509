//! XML in WeChat's form: elements, text and CDATA, and no entity expansion.
//!
//! The parser refuses a document type, so only the five predefined entities and character references exist, and neither
//! the depth nor the size of the result can exceed the depth and size of the body.

use quick_xml::{
    Reader, escape,
    events::{BytesRef, Event},
};

use super::node::Node;

/// WeChat's deepest event has three nested elements.
const MAX_DEPTH: usize = 8;

/// An open element.
struct Open {
    name: String,
    text: String,
    fields: Vec<(String, Node)>,
}

impl Open {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: String::new(),
            fields: Vec::new(),
        }
    }

    fn close(self) -> (String, Node) {
        let node = if self.fields.is_empty() {
            Node::Text(self.text)
        } else {
            Node::Fields(self.fields)
        };
        (self.name, node)
    }
}

/// Parses a document; the name of the root element is ignored.
pub(super) fn read(text: &str) -> Result<Node, &'static str> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    loop {
        match reader
            .read_event()
            .map_err(|_| "the body is not valid XML")?
        {
            Event::Start(start) => {
                if root.is_some() {
                    return Err("the XML has more than one root");
                }
                if open.len() == MAX_DEPTH {
                    return Err("the XML elements are nested too deeply");
                }
                open.push(Open::new(start.name().as_ref()));
            }
            Event::Empty(empty) => {
                let element = Open::new(empty.name().as_ref());
                put(&mut open, &mut root, element)?;
            }
            Event::End(_) => {
                let element = open
                    .pop()
                    .ok_or("the XML closes an element that is not open")?;
                put(&mut open, &mut root, element)?;
            }
            Event::Text(piece) => write(&mut open, &piece.into_inner())?,
            Event::CData(piece) => write(&mut open, &piece.into_inner())?,
            Event::GeneralRef(reference) => write(&mut open, &resolve(&reference)?)?,
            Event::DocType(_) => return Err("the XML has a document type"),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if open.is_empty() {
        root.ok_or("the XML has no root")
    } else {
        Err("the XML ends before the end of the root")
    }
}

fn put(open: &mut [Open], root: &mut Option<Node>, element: Open) -> Result<(), &'static str> {
    let (name, node) = element.close();
    match open.last_mut() {
        Some(parent) => parent.fields.push((name, node)),
        None if root.is_none() => *root = Some(node),
        None => return Err("the XML has more than one root"),
    }
    Ok(())
}

fn write(open: &mut [Open], piece: &str) -> Result<(), &'static str> {
    match open.last_mut() {
        Some(element) => element.text.push_str(piece),
        None if piece.trim().is_empty() => {}
        None => return Err("the XML has text outside of the root"),
    }
    Ok(())
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, &'static str> {
    let unknown = "the XML refers to an unknown entity";
    match reference.resolve_char_ref().map_err(|_| unknown)? {
        Some(character) => Ok(character.to_string()),
        None => escape::resolve_xml_entity(reference)
            .map(str::to_owned)
            .ok_or(unknown),
    }
}
