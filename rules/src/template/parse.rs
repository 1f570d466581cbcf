//! From tokens to a tree.

use std::collections::BTreeMap;

use super::lex::{Item, Token, Wrong, lex};

/// Templates nest no deeper; nobody writes such, and evaluation recurses with them.
const MAX_DEPTH: usize = 50;

pub(super) type List = Vec<Node>;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Pipe, List, List),
    With(Pipe, List, List),
    Range(Pipe, List, List),
    Template {
        at: usize,
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// Variables that it sets.
    pub(super) sets: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// An operand with where it stands in the text.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) kind: OperandKind,
}

#[derive(Clone, Debug)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    /// `.a.b`
    Field(Vec<String>),
    Function(String),
    Pipe(Pipe),
    /// `(…).a.b`
    Chain(Pipe, Vec<String>),
}

/// A parsed template with what it defines.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) root: List,
    pub(super) defined: BTreeMap<String, List>,
}

pub(super) fn parse(text: &str, is_function: &dyn Fn(&str) -> bool) -> Result<Tree, Wrong> {
    let mut parser = Parser {
        items: lex(text)?,
        next: 0,
        is_function,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
        depth: 0,
        loops: 0,
    };
    let (root, stop) = parser.list()?;
    match stop {
        Stop::Eof => Ok(Tree {
            root,
            defined: parser.defined,
        }),
        Stop::End => Err((parser.here(), "unexpected {{end}}".to_owned())),
        Stop::Else => Err((parser.here(), "unexpected {{else}}".to_owned())),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Eof,
    End,
    Else,
}

struct Parser<'f> {
    items: Vec<Item>,
    next: usize,
    is_function: &'f dyn Fn(&str) -> bool,
    variables: Vec<String>,
    defined: BTreeMap<String, List>,
    depth: usize,
    loops: usize,
}

impl Parser<'_> {
    /// The token in hand; the last one is never passed.
    fn peek(&self) -> &Item {
        &self.items[self.next.min(self.items.len() - 1)]
    }

    fn take(&mut self) -> Item {
        let item = self.peek().clone();
        self.next += 1;
        item
    }

    fn here(&self) -> usize {
        self.peek().at
    }

    fn keyword(&self) -> Option<&str> {
        match &self.peek().token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn unexpected<T>(&self, context: &str) -> Result<T, Wrong> {
        let item = self.peek();
        let shown = match &item.token {
            Token::End => return Err((item.at, "unexpected EOF".to_owned())),
            Token::Close => "\"}}\"".to_owned(),
            Token::Word(word) => format!("<{word}>"),
            Token::Str(text) => format!("{text:?}"),
            Token::Pipe => "\"|\"".to_owned(),
            Token::Left => "\"(\"".to_owned(),
            Token::Right => "\")\"".to_owned(),
            Token::Declare => "\":=\"".to_owned(),
            Token::Assign => "\"=\"".to_owned(),
            Token::Comma => "\",\"".to_owned(),
            Token::Dot => "<.>".to_owned(),
            Token::Field(name) => format!("<.{name}>"),
            Token::Variable(name) => format!("{name:?}"),
            Token::Int(number) => format!("\"{number}\""),
            Token::Float(number) => format!("\"{number}\""),
            Token::Text(_) | Token::Open => "text".to_owned(),
        };
        Err((item.at, format!("unexpected {shown} in {context}")))
    }

    /// Nodes up to what ends them; the action that does is taken up to its word.
    fn list(&mut self) -> Result<(List, Stop), Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.here(), format!("more than {MAX_DEPTH} levels")));
        }
        let mut nodes = Vec::new();
        let stop = loop {
            match self.take().token {
                Token::Text(text) => nodes.push(Node::Text(text)),
                Token::Open => {
                    let stop = match self.keyword() {
                        Some("end") => Some(Stop::End),
                        Some("else") => Some(Stop::Else),
                        _ => None,
                    };
                    if let Some(stop) = stop {
                        self.next += 1;
                        break stop;
                    }
                    nodes.extend(self.action()?);
                }
                _ => break Stop::Eof,
            }
        };
        self.depth -= 1;
        Ok((nodes, stop))
    }

    fn close(&mut self, context: &str) -> Result<(), Wrong> {
        match self.peek().token {
            Token::Close => {
                self.next += 1;
                Ok(())
            }
            _ => self.unexpected(context),
        }
    }

    fn action(&mut self) -> Result<Option<Node>, Wrong> {
        let word = self.keyword().unwrap_or_default().to_owned();
        let at = self.here();
        let node = match word.as_str() {
            "if" | "with" | "range" => {
                self.next += 1;
                return self.control(&word).map(Some);
            }
            "define" => {
                self.next += 1;
                let name = self.name("define clause")?;
                self.close("define clause")?;
                let body = self.body("define clause", &["$"])?;
                self.defined.insert(name, body);
                return Ok(None);
            }
            "block" => {
                self.next += 1;
                let name = self.name("block clause")?;
                let pipe = self.pipe("block clause")?;
                self.close("block clause")?;
                let body = self.body("block clause", &["$"])?;
                self.defined.insert(name.clone(), body);
                let pipe = Some(pipe);
                return Ok(Some(Node::Template { at, name, pipe }));
            }
            "template" => {
                self.next += 1;
                let name = self.name("template clause")?;
                let pipe = match self.peek().token {
                    Token::Close => None,
                    _ => Some(self.pipe("template clause")?),
                };
                Node::Template { at, name, pipe }
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err((at, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.next += 1;
                match word.as_str() {
                    "break" => Node::Break,
                    _ => Node::Continue,
                }
            }
            _ => Node::Action(self.pipe("command")?),
        };
        self.close("command")?;
        Ok(Some(node))
    }

    /// A definition's nodes; they see no variables but those named.
    fn body(&mut self, context: &str, variables: &[&str]) -> Result<List, Wrong> {
        let own = variables.iter().map(|name| (*name).to_owned()).collect();
        let outer = std::mem::replace(&mut self.variables, own);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, stop) = self.list()?;
        self.variables = outer;
        self.loops = loops;
        if stop != Stop::End {
            return self.unexpected(context);
        }
        self.close("end")?;
        Ok(nodes)
    }

    fn name(&mut self, context: &str) -> Result<String, Wrong> {
        match self.peek().token.clone() {
            Token::Str(name) => {
                self.next += 1;
                Ok(name)
            }
            _ => self.unexpected(context),
        }
    }

    fn control(&mut self, word: &str) -> Result<Node, Wrong> {
        let outer = self.variables.len();
        let pipe = self.pipe(word)?;
        self.close(word)?;
        self.loops += usize::from(word == "range");
        let (then, stop) = self.list()?;
        self.loops -= usize::from(word == "range");
        let mut otherwise = Vec::new();
        match stop {
            Stop::Eof => return Err((self.here(), "unexpected EOF".to_owned())),
            Stop::End => self.close("end")?,
            Stop::Else => match self.keyword() {
                Some(chained @ ("if" | "with")) if chained == word => {
                    let chained = chained.to_owned();
                    self.next += 1;
                    // It ends with this one's end.
                    otherwise.push(self.control(&chained)?);
                }
                _ => {
                    self.close("else")?;
                    let (list, stop) = self.list()?;
                    if stop != Stop::End {
                        return self.unexpected(word);
                    }
                    self.close("end")?;
                    otherwise = list;
                }
            },
        }
        self.variables.truncate(outer);
        Ok(match word {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    fn pipe(&mut self, context: &str) -> Result<Pipe, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.here(), format!("more than {MAX_DEPTH} levels")));
        }
        let (sets, declares) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            if command.is_empty() {
                let at = self.here();
                return Err((at, format!("missing value for {context}")));
            }
            let constant = |operand: &Operand| {
                !matches!(
                    operand.kind,
                    OperandKind::Function(_)
                        | OperandKind::Field(_)
                        | OperandKind::Variable(..)
                        | OperandKind::Chain(..)
                        | OperandKind::Pipe(_)
                )
            };
            if !commands.is_empty() && constant(&command[0]) {
                let (at, stage) = (command[0].at, commands.len() + 1);
                return Err((
                    at,
                    format!("non executable command in pipeline stage {stage}"),
                ));
            }
            commands.push(command);
            match self.peek().token {
                Token::Pipe => self.next += 1,
                Token::Close | Token::Right => break,
                _ => return self.unexpected(context),
            }
        }
        self.depth -= 1;
        Ok(Pipe {
            sets,
            declares,
            commands,
        })
    }

    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), Wrong> {
        let token = |offset: usize| self.items.get(self.next + offset).map(|item| &item.token);
        let (mut sets, mut length) = (Vec::new(), 0);
        if let Some(Token::Variable(name)) = token(0) {
            match (token(1), token(2), token(3)) {
                (Some(Token::Declare | Token::Assign), ..) => {
                    sets.push(name.clone());
                    length = 1;
                }
                (
                    Some(Token::Comma),
                    Some(Token::Variable(second)),
                    Some(Token::Declare | Token::Assign),
                ) if context == "range" => {
                    sets.extend([name.clone(), second.clone()]);
                    length = 3;
                }
                _ => {}
            }
        }
        if sets.is_empty() {
            return Ok((sets, false));
        }
        let at = self.here();
        self.next += length;
        let declares = self.take().token == Token::Declare;
        if declares {
            self.variables.extend(sets.iter().cloned());
        } else if let Some(unknown) = sets.iter().find(|name| !self.variables.contains(name)) {
            return Err((at, format!("undefined variable {unknown:?}")));
        }
        Ok((sets, declares))
    }

    fn command(&mut self) -> Result<Vec<Operand>, Wrong> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
            match self.peek().token {
                Token::Close | Token::Right | Token::Pipe => break,
                _ if self.peek().spaced => {}
                _ => return self.unexpected("operand"),
            }
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Option<Operand>, Wrong> {
        let at = self.here();
        let kind = match self.peek().token.clone() {
            Token::Word(word) => {
                self.next += 1;
                match word.as_str() {
                    "true" => OperandKind::Bool(true),
                    "false" => OperandKind::Bool(false),
                    "nil" => OperandKind::Nil,
                    name if (self.is_function)(name) => OperandKind::Function(word),
                    name => return Err((at, format!("function {name:?} not defined"))),
                }
            }
            Token::Dot => {
                self.next += 1;
                OperandKind::Dot
            }
            Token::Field(name) => {
                self.next += 1;
                let mut fields = vec![name];
                self.fields(&mut fields);
                OperandKind::Field(fields)
            }
            Token::Variable(name) => {
                self.next += 1;
                if !self.variables.contains(&name) {
                    return Err((at, format!("undefined variable {name:?}")));
                }
                let mut fields = Vec::new();
                self.fields(&mut fields);
                OperandKind::Variable(name, fields)
            }
            Token::Str(text) => {
                self.next += 1;
                OperandKind::Str(text)
            }
            Token::Int(number) => {
                self.next += 1;
                OperandKind::Int(number)
            }
            Token::Float(number) => {
                self.next += 1;
                OperandKind::Float(number)
            }
            Token::Left => {
                self.next += 1;
                let pipe = self.pipe("parenthesized pipeline")?;
                match self.peek().token {
                    Token::Right => self.next += 1,
                    _ => return Err((at, "unclosed left paren".to_owned())),
                }
                let mut fields = Vec::new();
                self.fields(&mut fields);
                match fields.is_empty() {
                    true => OperandKind::Pipe(pipe),
                    false => OperandKind::Chain(pipe, fields),
                }
            }
            Token::Close | Token::Right | Token::Pipe => return Ok(None),
            Token::Text(_)
            | Token::Open
            | Token::Declare
            | Token::Assign
            | Token::Comma
            | Token::End => return self.unexpected("operand"),
        };
        let end = self.peek().at;
        Ok(Some(Operand { at, end, kind }))
    }

    fn fields(&mut self, fields: &mut Vec<String>) {
        while let Item {
            token: Token::Field(name),
            spaced: false,
            ..
        } = self.peek()
        {
            fields.push(name.clone());
            self.next += 1;
        }
    }
}
