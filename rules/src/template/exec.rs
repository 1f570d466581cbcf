//! Evaluates a tree.

use std::rc::Rc;

use super::builtins;
use super::functions::Functions;
use super::parse::{List, Node, Operand, OperandKind, Pipe, Tree};
use super::value::Value;

/// A text of this many bytes is no label and no annotation.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// Templates that call one another, at most.
const MAX_CALLS: usize = 20;

/// Steps of all loops together, at most.
const MAX_STEPS: usize = 1_000_000;

/// What went wrong, at which byte, in which template.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) what: String,
}

enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Exec<'a> {
    tree: &'a Tree,
    functions: &'a Functions<'a>,
    out: String,
    variables: Vec<(String, Value)>,
    calls: usize,
    steps: usize,
}

impl<'a> Exec<'a> {
    pub(super) fn run(
        tree: &'a Tree,
        list: &List,
        functions: &'a Functions<'a>,
        data: Value,
    ) -> Result<String, Failed> {
        let mut exec = Self {
            tree,
            functions,
            out: String::new(),
            variables: vec![("$".to_owned(), data.clone())],
            calls: 0,
            steps: 0,
        };
        exec.list(list, &data)?;
        Ok(exec.out)
    }

    fn fail<T>(at: &Operand, what: impl Into<String>) -> Result<T, Failed> {
        Err(Failed {
            at: at.at,
            end: at.end,
            what: what.into(),
        })
    }

    fn write(&mut self, text: &str, at: usize) -> Result<(), Failed> {
        self.out.push_str(text);
        if self.out.len() > MAX_OUTPUT_BYTES {
            let what = format!("the result is longer than {MAX_OUTPUT_BYTES} bytes");
            return Err(Failed { at, end: at, what });
        }
        Ok(())
    }

    fn list(&mut self, list: &List, dot: &Value) -> Result<Flow, Failed> {
        for node in list {
            match self.node(node, dot)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Failed> {
        match node {
            Node::Text(text) => self.write(text, 0)?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.sets.is_empty() {
                    self.write(&value.show(), pipe.commands[0][0].at)?;
                }
            }
            Node::If(pipe, then, otherwise) | Node::With(pipe, then, otherwise) => {
                let outer = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let dot = match node {
                    Node::With(..) if value.truth() => &value,
                    _ => dot,
                };
                let flow = self.list(if value.truth() { then } else { otherwise }, dot)?;
                self.variables.truncate(outer);
                return Ok(flow);
            }
            Node::Range(pipe, body, otherwise) => return self.range(pipe, body, otherwise, dot),
            Node::Template { at, name, pipe } => {
                let data = match pipe {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Value::Nil,
                };
                self.template(*at, name, data)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn template(&mut self, at: usize, name: &str, data: Value) -> Result<(), Failed> {
        let failed = |what: String| Failed { at, end: at, what };
        let tree = self.tree;
        let list = tree.defined.get(name);
        let list = list.ok_or_else(|| failed(format!("template {name:?} not defined")))?;
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(failed(format!(
                "templates call one another more than {MAX_CALLS} deep"
            )));
        }
        let own = vec![("$".to_owned(), data.clone())];
        let outer = std::mem::replace(&mut self.variables, own);
        self.list(list, &data)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &List,
        otherwise: &List,
        dot: &Value,
    ) -> Result<Flow, Failed> {
        let outer = self.variables.len();
        // What the pipe sets are the elements, not its value.
        let unset = Pipe {
            sets: Vec::new(),
            ..pipe.clone()
        };
        let over = self.pipe(&unset, dot)?;
        let at = &pipe.commands[0][0];
        let elements: Vec<(Value, Value)> = match &over {
            Value::List(list) => (0..).map(Value::Int).zip(list.iter().cloned()).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(name, value)| (Value::Str(name.clone()), value.clone()))
                .collect(),
            Value::Int(count) => (0..(*count).min(MAX_STEPS as i64))
                .map(|i| (Value::Int(i), Value::Int(i)))
                .collect(),
            Value::Missing | Value::Nil => Vec::new(),
            other => return Self::fail(at, format!("range can't iterate over {}", other.text())),
        };
        if elements.is_empty() {
            let flow = self.list(otherwise, dot)?;
            self.variables.truncate(outer);
            return Ok(flow);
        }
        for (key, element) in elements {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Self::fail(at, format!("more than {MAX_STEPS} steps"));
            }
            let mark = self.variables.len();
            match pipe.sets.as_slice() {
                [] => {}
                [one] => self.set(one, element.clone(), pipe.declares),
                [first, second, ..] => {
                    self.set(first, key, pipe.declares);
                    self.set(second, element.clone(), pipe.declares);
                }
            }
            let flow = self.list(body, &element)?;
            self.variables.truncate(mark);
            if let Flow::Break = flow {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &str, value: Value, declare: bool) {
        if declare {
            self.variables.push((name.to_owned(), value));
        } else if let Some(known) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            known.1 = value;
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Failed> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Missing);
        for name in &pipe.sets {
            self.set(name, value.clone(), pipe.declares);
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failed> {
        let first = &command[0];
        if let OperandKind::Function(name) = &first.kind {
            return self.call(first, name, &command[1..], dot, last);
        }
        if command.len() > 1 || last.is_some() {
            let what = match &first.kind {
                OperandKind::Field(fields)
                | OperandKind::Variable(_, fields)
                | OperandKind::Chain(_, fields)
                    if !fields.is_empty() =>
                {
                    let name = fields.last().map_or("", String::as_str);
                    format!("{name} is not a method but has arguments")
                }
                _ => "can't give argument to non-function".to_owned(),
            };
            return Self::fail(first, what);
        }
        match first.kind {
            OperandKind::Nil => Self::fail(first, "nil is not a command"),
            _ => self.operand(first, dot),
        }
    }

    fn call(
        &mut self,
        at: &Operand,
        name: &str,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failed> {
        if let "and" | "or" = name {
            // Only as many arguments are looked at as are needed.
            let mut value = Value::Missing;
            for operand in operands {
                value = self.operand(operand, dot)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return match (last, operands.is_empty()) {
                (Some(last), _) => Ok(last),
                (None, false) => Ok(value),
                (None, true) => {
                    let what = format!("wrong number of args for {name}: want at least 1 got 0");
                    Self::fail(at, what)
                }
            };
        }
        let mut args = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(last);
        let done = match builtins::call(name, &args) {
            Some(done) => done,
            None => self.functions.call(name, &args),
        };
        let whole = Operand {
            end: operands.last().map_or(at.end, |last| last.end),
            ..at.clone()
        };
        done.or_else(|what| match what.starts_with("wrong number") {
            true => Self::fail(at, what),
            false => Self::fail(&whole, what),
        })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Failed> {
        let walk = |value: Value, fields: &[String]| {
            let found = fields
                .iter()
                .try_fold(value, |value, name| value.field(name));
            found.or_else(|what| Self::fail(operand, what))
        };
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Nil => Ok(Value::Nil),
            OperandKind::Bool(value) => Ok(Value::Bool(*value)),
            OperandKind::Int(value) => Ok(Value::Int(*value)),
            OperandKind::Float(value) => Ok(Value::Float(*value)),
            OperandKind::Str(value) => Ok(Value::Str(value.clone())),
            OperandKind::Field(fields) => walk(dot.clone(), fields),
            OperandKind::Variable(name, fields) => {
                let known = self.variables.iter().rev().find(|(n, _)| n == name);
                match known {
                    Some((_, value)) => walk(value.clone(), fields),
                    None => Self::fail(operand, format!("undefined variable: {name}")),
                }
            }
            OperandKind::Function(name) => self.call(operand, name, &[], dot, None),
            OperandKind::Pipe(pipe) => self.pipe(pipe, dot),
            OperandKind::Chain(pipe, fields) => {
                let value = self.pipe(pipe, dot)?;
                walk(value, fields)
            }
        }
    }
}

/// A list of values.
pub(super) fn list(values: Vec<Value>) -> Value {
    Value::List(Rc::new(values))
}
