//! The content of a body, independent of the format.

/// A node of a body. Numbers and literals of JSON become texts, because XML has only texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A value.
    Text(String),
    /// A JSON array.
    List(Vec<Node>),
    /// A JSON object, or an element with child elements. In XML a name may occur several times.
    Fields(Vec<(String, Node)>),
}

impl Node {
    /// The fields with this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        let fields = match self {
            Self::Fields(fields) => fields.as_slice(),
            Self::Text(_) | Self::List(_) => &[],
        };
        fields
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, node)| node)
    }

    /// The text of the first field with this name.
    pub(super) fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match self.all(name).next()? {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Fields(_) => None,
        }
    }

    /// The items of a list, or the node itself: WeChat writes a list of one item as the item.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            one => std::slice::from_ref(one),
        }
    }
}
