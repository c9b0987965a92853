//! Files depend on each other in one direction: no circle anywhere in src and tcpcrypt. What a file uses is what its `use`
//! items, its paths and its calls of methods on `self` name, followed through re-exports to the file that defines it. A
//! re-export is no dependency, and neither are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A module's path from its crate's name on.
type Place = Vec<String>;

enum Name {
    /// Defined in the module.
    Defined,
    /// Imported there from this path.
    Used(Vec<String>),
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    names: BTreeMap<String, Name>,
    items: Vec<syn::Item>,
}

#[derive(Default)]
struct Tree {
    modules: BTreeMap<Place, Module>,
    /// The file that has a method, by the place and name of its type and its own.
    methods: BTreeMap<(Place, String, String), PathBuf>,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| a.path().is_ident("cfg") && quote(&a.meta).contains("test"))
}

fn quote(meta: &syn::Meta) -> String {
    match meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(i) => &i.attrs,
        syn::Item::Enum(i) => &i.attrs,
        syn::Item::Fn(i) => &i.attrs,
        syn::Item::Impl(i) => &i.attrs,
        syn::Item::Macro(i) => &i.attrs,
        syn::Item::Mod(i) => &i.attrs,
        syn::Item::Static(i) => &i.attrs,
        syn::Item::Struct(i) => &i.attrs,
        syn::Item::Trait(i) => &i.attrs,
        syn::Item::Type(i) => &i.attrs,
        syn::Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// The paths that a `use` names, each with the name it has here.
fn leaves(tree: &syn::UseTree, before: &[String], into: &mut Vec<(String, Vec<String>)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), into),
        syn::UseTree::Name(name) if name.ident == "self" => {
            into.push((before.last().cloned().unwrap_or_default(), before.to_vec()));
        }
        syn::UseTree::Name(name) => into.push((name.ident.to_string(), with(&name.ident))),
        syn::UseTree::Rename(rename) => into.push((rename.rename.to_string(), with(&rename.ident))),
        syn::UseTree::Glob(_) => into.push(("*".to_owned(), before.to_vec())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| leaves(item, before, into)),
    }
}

impl Tree {
    fn read(crate_name: &str, root: &Path, into: &mut Self) {
        into.module(vec![crate_name.to_owned()], root, root.parent().expect("a folder"));
    }

    fn module(&mut self, place: Place, file: &Path, folder: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let items = syn::parse_file(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display())).items;
        self.items(place, file, folder, items);
    }

    fn items(&mut self, place: Place, file: &Path, folder: &Path, items: Vec<syn::Item>) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items.into_iter().filter(|item| !is_test(attributes(item))) {
            let defined = match &item {
                syn::Item::Const(i) => Some(&i.ident),
                syn::Item::Enum(i) => Some(&i.ident),
                syn::Item::Fn(i) => Some(&i.sig.ident),
                syn::Item::Macro(i) => i.ident.as_ref(),
                syn::Item::Static(i) => Some(&i.ident),
                syn::Item::Struct(i) => Some(&i.ident),
                syn::Item::Trait(i) => Some(&i.ident),
                syn::Item::Type(i) => Some(&i.ident),
                _ => None,
            };
            if let Some(name) = defined {
                module.names.insert(name.to_string(), Name::Defined);
            }
            if let syn::Item::Use(item) = &item {
                let mut found = Vec::new();
                leaves(&item.tree, &[], &mut found);
                for (name, path) in found {
                    // `use context;` gives a macro of the module's own a path.
                    if path.as_slice() != [name.clone()] {
                        module.names.entry(name).or_insert(Name::Used(path));
                    }
                }
            }
            if let syn::Item::Mod(item) = item {
                let name = item.ident.to_string();
                let inner = [&place[..], std::slice::from_ref(&name)].concat();
                let below = folder.join(&name);
                match item.content {
                    Some((_, items)) => self.items(inner, file, &below, items),
                    None => {
                        let beside = folder.join(format!("{name}.rs"));
                        let file = if beside.exists() { beside } else { below.join("mod.rs") };
                        self.module(inner, &file, &below);
                    }
                }
            } else {
                module.items.push(item);
            }
        }
        self.modules.insert(place, module);
    }

    /// The module and the name that `path`, seen from `place`, leads to.
    fn resolve(&self, place: &Place, path: &[String], depth: usize) -> Option<(Place, Option<String>)> {
        assert!(depth < 30, "{path:?} from {place:?} goes round");
        let (first, rest) = path.split_first()?;
        let mut at = place.clone();
        match first.as_str() {
            "crate" => at.truncate(1),
            "self" => {}
            "super" => {
                at.pop();
            }
            name if self.modules.contains_key(&vec![name.to_owned()]) => at = vec![name.to_owned()],
            name => return self.step(&at, name, rest, depth),
        }
        self.follow(at, rest, depth)
    }

    fn follow(&self, at: Place, path: &[String], depth: usize) -> Option<(Place, Option<String>)> {
        match path.split_first() {
            None => Some((at, None)),
            Some((name, rest)) if name == "super" => self.follow(at[..at.len() - 1].to_vec(), rest, depth),
            Some((name, rest)) => self.step(&at, name, rest, depth),
        }
    }

    fn step(&self, at: &Place, name: &str, rest: &[String], depth: usize) -> Option<(Place, Option<String>)> {
        let below = [&at[..], &[name.to_owned()]].concat();
        if self.modules.contains_key(&below) {
            return self.follow(below, rest, depth);
        }
        match self.modules.get(at)?.names.get(name)? {
            Name::Defined => Some((at.clone(), Some(name.to_owned()))),
            Name::Used(path) => {
                let (place, found) = self.resolve(at, path, depth + 1)?;
                match found {
                    None => self.follow(place, rest, depth + 1),
                    found => Some((place, found)),
                }
            }
        }
    }

    fn type_of(&self, place: &Place, ty: &syn::Type) -> Option<(Place, String)> {
        let syn::Type::Path(path) = ty else { return None };
        let (place, name) = self.resolve(place, &segments(&path.path), 0)?;
        Some((place, name?))
    }

    fn find_methods(&mut self) {
        let mut found = Vec::new();
        for (place, module) in &self.modules {
            for item in &module.items {
                let syn::Item::Impl(item) = item else { continue };
                let Some((of, name)) = self.type_of(place, &item.self_ty).filter(|_| item.trait_.is_none()) else {
                    continue;
                };
                for method in &item.items {
                    if let syn::ImplItem::Fn(method) = method {
                        found.push(((of.clone(), name.clone(), method.sig.ident.to_string()), module.file.clone()));
                    }
                }
            }
        }
        self.methods.extend(found);
    }

    /// What each file uses, and for which names.
    fn uses(&self) -> BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>> {
        let mut graph: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>> = BTreeMap::new();
        for (place, module) in &self.modules {
            let mut uses = Uses { tree: self, place, of: None, found: Vec::new() };
            module.items.iter().for_each(|item| uses.visit_item(item));
            for (file, name) in uses.found.into_iter().filter(|(file, _)| *file != module.file) {
                graph.entry(module.file.clone()).or_default().entry(file).or_default().insert(name);
            }
        }
        graph
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|s| s.ident.to_string()).collect()
}

struct Uses<'a> {
    tree: &'a Tree,
    place: &'a Place,
    /// The type whose methods are looked at.
    of: Option<(Place, String)>,
    found: Vec<(PathBuf, String)>,
}

impl Uses<'_> {
    fn path(&mut self, path: &[String]) {
        if let Some((place, name)) = self.tree.resolve(self.place, path, 0)
            // A module is named on the way to what is in it.
            && let Some(name) = name
            && let Some(module) = self.tree.modules.get(&place)
        {
            self.found.push((module.file.clone(), name));
        }
    }

    fn method(&mut self, method: String) {
        if let Some((place, name)) = &self.of
            && let Some(file) = self.tree.methods.get(&(place.clone(), name.clone(), method.clone()))
        {
            self.found.push((file.clone(), format!("{name}::{method}")));
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if matches!(item.vis, syn::Visibility::Inherited) {
            let mut found = Vec::new();
            leaves(&item.tree, &[], &mut found);
            found.iter().for_each(|(_, path)| self.path(path));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let before = std::mem::replace(&mut self.of, self.tree.type_of(self.place, &item.self_ty));
        visit::visit_item_impl(self, item);
        self.of = before;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = segments(path);
        match &segments[..] {
            [first, method] if first == "Self" => self.method(method.clone()),
            all => self.path(all),
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if let syn::Expr::Path(path) = &*call.receiver
            && path.path.is_ident("self")
        {
            self.method(call.method.to_string());
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The files that can be reached from `from`.
fn reach<'a>(
    graph: &'a BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>,
    from: &'a PathBuf,
) -> BTreeSet<&'a PathBuf> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        for used in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(used) {
                next.push(used);
            }
        }
    }
    found
}

#[test]
fn files_do_not_depend_on_each_other_in_circles() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::default();
    Tree::read("enotun", &root.join("src/lib.rs"), &mut tree);
    Tree::read("tcpcrypt", &root.join("tcpcrypt/src/lib.rs"), &mut tree);
    tree.find_methods();
    let graph = tree.uses();
    assert!(graph.len() > 50 && graph.values().map(BTreeMap::len).sum::<usize>() > 200, "hardly anything was read");
    let reached: BTreeMap<_, _> = graph.keys().map(|file| (file, reach(&graph, file))).collect();
    let mut circles: BTreeMap<BTreeSet<&PathBuf>, Vec<String>> = BTreeMap::new();
    for (file, used) in &graph {
        let circle: BTreeSet<_> = reached[file]
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)))
            .copied()
            .collect();
        for (to, names) in used.iter().filter(|(to, _)| circle.contains(to)) {
            let short = |path: &PathBuf| path.strip_prefix(&root).unwrap_or(path).display().to_string();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            circles.entry(circle.clone()).or_default().push(format!(
                "{} uses {}: {}",
                short(file),
                short(to),
                names.join(", ")
            ));
        }
    }
    let all: Vec<String> = circles.values().map(|circle| circle.join("\n")).collect();
    assert!(all.is_empty(), "{} circles:\n{}", all.len(), all.join("\n\n"));
}
