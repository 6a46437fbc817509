//! Circles of modules stay small: a reader has to know all files of a circle to understand one of the files.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use syn::{
    Attribute, Ident, Item, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

use crate::workspace::members;

/// The most files of a crate that may import each other in a circle.
const LARGEST: usize = 4;
/// Crates with a larger circle, and the files of the circle. A number in this list never grows.
const LARGER: &[(&str, usize)] = &[("wxgate-store", 11)];

/// The path of a module or of an item, from the root of the crate.
type Names = Vec<String>;

/// The imports of a crate. Re-exports do not count: a re-export gives a name to readers and uses nothing.
#[derive(Default)]
struct Imports {
    /// The text of each module with a file of its own.
    files: BTreeMap<Names, String>,
    /// Each used path with the module that uses the path.
    used: Vec<(Names, Names)>,
    /// The paths behind the names that `use` brings into a module.
    names: HashMap<(Names, String), Names>,
}

impl Imports {
    /// Reads the crate whose root file is `file`.
    fn read(file: &Path) -> Self {
        let mut imports = Self::default();
        imports.load(file, &vec![]);
        for (module, text) in imports.files.clone() {
            let mut reader = Reader {
                module,
                imports: &mut imports,
            };
            reader.visit_file(&syn::parse_file(&text).expect("the file compiles"));
        }
        imports
    }

    fn load(&mut self, file: &Path, module: &Names) {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).expect("the file compiles");
        self.files.insert(module.clone(), text);
        let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main" | "mod") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        for item in &parsed.items {
            let Item::Mod(child) = item else { continue };
            if child.content.is_some() || is_test(&child.attrs) {
                continue;
            }
            let flat = folder.join(format!("{}.rs", child.ident));
            let nested = folder.join(child.ident.to_string()).join("mod.rs");
            let path = joined(module, &child.ident.to_string());
            self.load(if flat.exists() { &flat } else { &nested }, &path);
        }
    }

    /// The module with a file of its own that defines `path`, as used in `module`. `None` for other crates.
    fn definer(&self, module: &Names, path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => return self.below(vec![], rest),
            "self" => return self.below(module.clone(), rest),
            "super" => {
                let parent = module.split_last()?.1.to_vec();
                return match rest.first() {
                    Some(next) if next == "super" => self.definer(&parent, rest),
                    _ => self.below(parent, rest),
                };
            }
            _ => {}
        }
        let child = joined(module, first);
        if self.files.contains_key(&child) {
            return self.below(child, rest);
        }
        let full = self.names.get(&(module.clone(), first.clone()))?;
        // An import of another crate by the crate's own name.
        if full[0] == *first {
            return None;
        }
        self.definer(module, &[full, rest].concat())
    }

    /// The module that defines `path`, which begins in `module`.
    fn below(&self, mut module: Names, path: &[String]) -> Option<Names> {
        if let Some((first, rest)) = path.split_first() {
            let child = joined(&module, first);
            if self.files.contains_key(&child) {
                return self.below(child, rest);
            }
            if let Some(full) = self.names.get(&(module.clone(), first.clone())) {
                return self.definer(&module, &[full, rest].concat());
            }
        }
        while !self.files.contains_key(&module) {
            module.pop();
        }
        Some(module)
    }

    /// The circles of at least two files, each as the names of its modules.
    fn circles(&self) -> Vec<Vec<String>> {
        let shown =
            |module: &Names| joined(&vec!["crate".to_owned()], &module.join("::")).join("::");
        let names: BTreeMap<_, _> = self
            .files
            .keys()
            .map(|module| (module, shown(module)))
            .collect();
        let mut graph = DiGraphMap::<&str, ()>::new();
        for (module, path) in &self.used {
            let user = self.below(module.clone(), &[]);
            let definer = self.definer(module, path);
            if let (Some(user), Some(definer)) = (user, definer)
                && user != definer
            {
                graph.add_edge(&names[&user], &names[&definer], ());
            }
        }
        let circles = tarjan_scc(&graph)
            .into_iter()
            .filter(|files| files.len() > 1);
        circles
            .map(|files| files.into_iter().map(str::to_owned).collect())
            .collect()
    }
}

/// Collects the imports of one file.
struct Reader<'a> {
    /// The module of the current item. An inline module extends the module of the file.
    module: Names,
    imports: &'a mut Imports,
}

impl Reader<'_> {
    fn add(&mut self, tree: &UseTree, mut path: Names, exported: bool) {
        let name = match tree {
            UseTree::Path(next) => {
                path.push(next.ident.to_string());
                return self.add(&next.tree, path, exported);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add(tree, path.clone(), exported);
                }
                return;
            }
            UseTree::Name(name) => named(&name.ident, &name.ident, &mut path),
            UseTree::Rename(rename) => named(&rename.ident, &rename.rename, &mut path),
            UseTree::Glob(_) => None,
        };
        if let Some(name) = name {
            let key = (self.module.clone(), name);
            self.imports.names.insert(key, path.clone());
        }
        if !exported {
            self.imports.used.push((self.module.clone(), path));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() && !is_test(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let exported = !matches!(item.vis, Visibility::Inherited);
        if !is_test(&item.attrs) {
            self.add(&item.tree, vec![], exported);
        }
    }

    // The path of `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|part| part.ident.to_string());
        let used = (self.module.clone(), names.collect());
        self.imports.used.push(used);
        visit::visit_path(self, path);
    }
}

/// Completes `path` by the imported item and returns the name of the item in the importing module. `self` stands for
/// the path before.
fn named(item: &Ident, name: &Ident, path: &mut Names) -> Option<String> {
    if item != "self" {
        path.push(item.to_string());
    }
    if name == "self" {
        path.last().cloned()
    } else {
        Some(name.to_string())
    }
}

fn joined(module: &Names, name: &str) -> Names {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    let test = syn::parse_quote!(#[cfg(test)]);
    attributes.contains(&test)
}

#[test]
fn circles_of_modules_are_small() {
    let mut wrong = Vec::new();
    for package in members() {
        let folder = package.manifest_path.parent().unwrap().join("src");
        let file = [folder.join("lib.rs"), folder.join("main.rs")];
        let Some(file) = file.iter().find(|file| file.exists()) else {
            continue;
        };
        let circles = Imports::read(file.as_std_path()).circles();
        let largest = circles.into_iter().max_by_key(Vec::len).unwrap_or_default();
        let known = LARGER.iter().find(|(name, _)| package.name == *name);
        let most = known.map_or(LARGEST, |(_, files)| *files);
        if largest.len() > most || (known.is_some() && largest.len() < most) {
            wrong.push(format!(
                "{}: {} files import each other in a circle, not {most}: {}",
                package.name,
                largest.len(),
                largest.join(" ")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "move what two modules share into a third module (docs/ARCHITECTURE.md):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_circle_is_found_through_names_and_inline_modules_and_not_through_exports() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use c::C;"),
        ("a.rs", "use crate::b; pub struct A(b::B);"),
        (
            "b.rs",
            "mod inner { use crate::A; fn f(_: A) {} } pub struct B; mod nested;",
        ),
        ("b/nested.rs", "use super::super::c::C; fn f(_: C) {}"),
        (
            "c.rs",
            "pub struct C; #[cfg(test)] mod tests { use crate::b::B; }",
        ),
    ];
    std::fs::create_dir(folder.path().join("b")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut circles = Imports::read(&folder.path().join("lib.rs")).circles();
    for files in &mut circles {
        files.sort();
    }
    assert_eq!(circles, [["crate::a", "crate::b"]]);
}
