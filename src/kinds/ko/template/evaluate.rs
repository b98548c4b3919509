//! A parsed template, run over its data.
//!
//! Source: text/template/exec.go.

use super::functions::Function;
use super::parse::{Node, Operand, Pipeline};
use super::value::Value;
use super::{Fault, LIMIT_TEXT_BYTES};

struct State<'a> {
    /// The first is `$`, the data.
    variables: Vec<(&'a str, Value)>,
    out: String,
}

/// What the nodes print.
pub(super) fn run(nodes: &[Node], data: &Value) -> Result<String, Fault> {
    let mut state = State { variables: vec![("$", data.clone())], out: String::new() };
    state.walk(nodes, &data.clone())?;
    Ok(state.out)
}

/// `text`, if it is not longer than anything may be.
pub(super) fn bounded(text: String) -> Result<Value, Fault> {
    if text.len() > LIMIT_TEXT_BYTES {
        return Err(Fault::unsupported(format!("a text of more than {LIMIT_TEXT_BYTES} bytes")));
    }
    Ok(Value::Text(text))
}

impl<'a> State<'a> {
    fn print(&mut self, text: &str) -> Result<(), Fault> {
        if self.out.len() + text.len() > LIMIT_TEXT_BYTES {
            return Err(Fault::unsupported(format!("a text of more than {LIMIT_TEXT_BYTES} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn walk(&mut self, nodes: &'a [Node], dot: &Value) -> Result<(), Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => self.print(text)?,
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variable.is_none() {
                        let mut text = String::new();
                        value.printed().print(&mut text);
                        self.print(&text)?;
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let known = self.variables.len();
                    let branch = if self.pipeline(condition, dot)?.is_true() { then } else { otherwise };
                    self.walk(branch, dot)?;
                    self.variables.truncate(known);
                }
                Node::With { value, then, otherwise } => {
                    let known = self.variables.len();
                    let value = self.pipeline(value, dot)?;
                    if value.is_true() {
                        self.walk(then, &value)?;
                    } else {
                        self.walk(otherwise, dot)?;
                    }
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, Fault> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.ok_or_else(|| Fault::syntax("missing value for command"))?;
        match &pipeline.variable {
            Some((name, true)) => self.variables.push((name, value.clone())),
            Some((name, false)) => {
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| Fault::value(format!("undefined variable: {name}")))?.1 = value.clone();
            }
            None => {}
        }
        Ok(value)
    }

    /// `last`: what the command before gave, the last argument of this one.
    fn command(&mut self, operands: &'a [Operand], dot: &Value, last: Option<Value>) -> Result<Value, Fault> {
        let Some((first, arguments)) = operands.split_first() else {
            return Err(Fault::syntax("missing value for command"));
        };
        if let Operand::Function(function) = first {
            return self.call(*function, arguments, dot, last);
        }
        if !arguments.is_empty() || last.is_some() {
            return Err(Fault::value("can't give argument to non-function"));
        }
        if matches!(first, Operand::Nil) {
            return Err(Fault::value("nil is not a command"));
        }
        self.operand(first, dot)
    }

    fn call(
        &mut self,
        function: Function,
        operands: &'a [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        if function == Function::And || function == Function::Or {
            return self.decide(function == Function::Or, operands, dot, last);
        }
        let mut arguments = Vec::new();
        for operand in operands {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        super::functions::call(function, &arguments)
    }

    /// `and` and `or`: the first value that decides, the last where none does; what follows it is not looked at.
    fn decide(
        &mut self,
        until: bool,
        operands: &'a [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        let name = if until { "or" } else { "and" };
        let mut value = None;
        for operand in operands {
            let found = self.operand(operand, dot)?;
            if found.is_true() == until {
                return Ok(found);
            }
            value = Some(found);
        }
        last.or(value)
            .ok_or_else(|| Fault::value(format!("wrong number of args for {name}: want at least 1 got 0")))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value, Fault> {
        Ok(match operand {
            Operand::Literal(value) => value.clone(),
            Operand::Nil => Value::Nil,
            Operand::Dot => dot.clone(),
            Operand::Function(function) => self.call(*function, &[], dot, None)?,
            Operand::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| Fault::value(format!("undefined variable: {name}")))?;
                value.clone()
            }
            Operand::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
            Operand::Fields(base, names) => {
                let mut value = self.operand(base, dot)?;
                for name in names {
                    value = field(&value, name)?;
                }
                value
            }
        })
    }
}

fn field(value: &Value, name: &str) -> Result<Value, Fault> {
    let found = match value {
        Value::Texts(map) => map.get(name).cloned().map(Value::Text),
        Value::Map(map) => map.get(name).cloned(),
        Value::Nil => return Err(Fault::value(format!("nil data; no entry for key {name:?}"))),
        other => {
            return Err(Fault::value(format!("can't evaluate field {name} in type {}", other.type_name())));
        }
    };
    found.ok_or_else(|| Fault::value(format!("map has no entry for key {name:?}")))
}
