//! Tokens as a tree: texts, pipelines, conditions.
//!
//! Source: text/template/parse/parse.go.

use super::Fault;
use super::functions::Function;
use super::lex::Token;
use super::value::Value;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    /// Printed, unless it declares or assigns.
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

#[derive(Debug)]
pub(super) struct Pipeline {
    /// The variable that takes the value, and whether it is a new one.
    pub variable: Option<(String, bool)>,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
pub(super) enum Operand {
    Literal(Value),
    Nil,
    Dot,
    Function(Function),
    Variable(String),
    Pipeline(Box<Pipeline>),
    /// `.a.b` of what stands before; of the dot where nothing does.
    Fields(Box<Operand>, Vec<String>),
}

/// Parentheses and conditions within each other.
const LIMIT_DEPTH: usize = 64;

const REFUSED: [&str; 6] = ["range", "define", "block", "template", "break", "continue"];

/// How a list of nodes ended.
enum Stop {
    Eof,
    End,
    Else,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    variables: Vec<String>,
    depth: usize,
}

pub(super) fn parse(tokens: Vec<Token>) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser { tokens, at: 0, variables: vec!["$".to_owned()], depth: 0 };
    match parser.list()? {
        (nodes, Stop::Eof) => Ok(nodes),
        (_, Stop::End) => Err(Fault::syntax("unexpected {{end}}")),
        (_, Stop::Else) => Err(Fault::syntax("unexpected {{else}}")),
    }
}

fn unexpected(token: Option<&Token>, context: &str) -> Fault {
    let what = match token {
        None => "end".to_owned(),
        Some(Token::Word(word)) => format!("{word:?}"),
        Some(Token::Field(name)) => format!("\".{name}\""),
        Some(Token::Variable(name)) => format!("{name:?}"),
        Some(Token::Quoted(text)) => format!("{text:?}"),
        Some(Token::Number(text)) => text.clone(),
        Some(Token::Close) => "}}".to_owned(),
        Some(Token::Assign) => "\"=\"".to_owned(),
        Some(Token::Declare) => "\":=\"".to_owned(),
        Some(Token::Comma) => "\",\"".to_owned(),
        Some(Token::Pipe) => "\"|\"".to_owned(),
        Some(Token::LeftParen) => "\"(\"".to_owned(),
        Some(Token::RightParen) => "\")\"".to_owned(),
        Some(_) => "token".to_owned(),
    };
    Fault::syntax(format!("unexpected {what} in {context}"))
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        self.next_if(|_| true)
    }

    fn next_if(&mut self, is: impl Fn(&Token) -> bool) -> Option<Token> {
        let token = self.tokens.get(self.at).filter(|token| is(token)).cloned()?;
        self.at += 1;
        Some(token)
    }

    fn skip_space(&mut self) {
        while self.next_if(|token| *token == Token::Space).is_some() {}
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > LIMIT_DEPTH {
            return Err(Fault::unsupported(format!("more than {LIMIT_DEPTH} levels")));
        }
        Ok(())
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        loop {
            match self.next() {
                None => return Ok((nodes, Stop::Eof)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => {
                    self.skip_space();
                    let keyword = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match keyword.as_str() {
                        "end" => {
                            self.next();
                            self.close("end")?;
                            return Ok((nodes, Stop::End));
                        }
                        "else" => {
                            self.next();
                            return Ok((nodes, Stop::Else));
                        }
                        "if" | "with" => {
                            self.next();
                            nodes.push(self.condition(keyword == "if")?);
                        }
                        word if REFUSED.contains(&word) => {
                            return Err(Fault::unsupported(format!("{{{{{word}}}}}")));
                        }
                        _ => nodes.push(Node::Action(self.pipeline("command", &Token::Close)?)),
                    }
                }
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<(), Fault> {
        self.skip_space();
        match self.next() {
            Some(Token::Close) => Ok(()),
            other => Err(unexpected(other.as_ref(), context)),
        }
    }

    /// What follows `if` and `with`, up to its end.
    fn condition(&mut self, is_if: bool) -> Result<Node, Fault> {
        self.deeper()?;
        let known = self.variables.len();
        let context = if is_if { "if" } else { "with" };
        let condition = self.pipeline(context, &Token::Close)?;
        let (then, end) = self.list()?;
        let otherwise = match end {
            Stop::Eof => return Err(Fault::syntax("unexpected EOF")),
            Stop::End => Vec::new(),
            Stop::Else => self.otherwise(context)?,
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match is_if {
            true => Node::If { condition, then, otherwise },
            false => Node::With { value: condition, then, otherwise },
        })
    }

    fn otherwise(&mut self, context: &str) -> Result<Vec<Node>, Fault> {
        self.skip_space();
        // `else if` of an if, `else with` of a with: a condition within this one, and one end for both
        if self.next_if(|token| matches!(token, Token::Word(word) if word == context)).is_some() {
            return Ok(vec![self.condition(context == "if")?]);
        }
        self.close("else")?;
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Else) => Err(Fault::syntax("expected end; found {{else}}")),
            (_, Stop::Eof) => Err(Fault::syntax("unexpected EOF")),
        }
    }

    fn pipeline(&mut self, context: &str, end: &Token) -> Result<Pipeline, Fault> {
        self.skip_space();
        let variable = self.declaration(context)?;
        let mut commands: Vec<Vec<Operand>> = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(token) if token == end => {
                    self.next();
                    self.check(&commands, context)?;
                    if let Some((name, true)) = &variable {
                        self.variables.push(name.clone());
                    }
                    return Ok(Pipeline { variable, commands });
                }
                None => return Err(unexpected(None, context)),
                Some(_) => commands.push(self.command(end)?),
            }
        }
    }

    fn check(&self, commands: &[Vec<Operand>], context: &str) -> Result<(), Fault> {
        if commands.is_empty() {
            return Err(Fault::syntax(format!("missing value for {context}")));
        }
        let fixed = |operand: Option<&Operand>| {
            matches!(operand, Some(Operand::Literal(_) | Operand::Dot | Operand::Nil))
        };
        match commands.iter().skip(1).position(|command| fixed(command.first())) {
            Some(at) => Err(Fault::syntax(format!("non executable command in pipeline stage {}", at + 2))),
            None => Ok(()),
        }
    }

    /// `$name :=` or `$name =` at the front of a pipeline.
    fn declaration(&mut self, context: &str) -> Result<Option<(String, bool)>, Fault> {
        let start = self.at;
        let Some(Token::Variable(name)) = self.next_if(|token| matches!(token, Token::Variable(_))) else {
            return Ok(None);
        };
        self.skip_space();
        let new = match self.next() {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            Some(Token::Comma) => return Err(Fault::syntax(format!("too many declarations in {context}"))),
            _ => {
                self.at = start;
                return Ok(None);
            }
        };
        if !new && !self.variables.contains(&name) {
            return Err(Fault::syntax(format!("undefined variable {name:?}")));
        }
        Ok(Some((name, new)))
    }

    /// Operands with spaces between them, up to a pipe or the end.
    fn command(&mut self, end: &Token) -> Result<Vec<Operand>, Fault> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            match self.peek() {
                Some(Token::Space) => {}
                Some(Token::Pipe) => {
                    // nothing need follow it: Go takes that
                    self.next();
                    break;
                }
                Some(token) if token == end => break,
                other => return Err(unexpected(other, "operand")),
            }
            if operands.is_empty() {
                break;
            }
        }
        if operands.is_empty() { Err(Fault::syntax("empty command")) } else { Ok(operands) }
    }

    /// A term and the fields behind it; none where a pipe or the end stands.
    fn operand(&mut self) -> Result<Option<Operand>, Fault> {
        let Some(term) = self.term()? else { return Ok(None) };
        let mut fields = Vec::new();
        while let Some(Token::Field(name)) = self.next_if(|token| matches!(token, Token::Field(_))) {
            fields.push(name);
        }
        Ok(Some(match (term, fields) {
            (term, fields) if fields.is_empty() => term,
            (Operand::Fields(base, mut first), fields) => {
                first.extend(fields);
                Operand::Fields(base, first)
            }
            (Operand::Literal(_) | Operand::Nil | Operand::Dot, _) => {
                return Err(Fault::syntax("unexpected . after a term"));
            }
            (term, fields) => Operand::Fields(Box::new(term), fields),
        }))
    }

    fn term(&mut self) -> Result<Option<Operand>, Fault> {
        let starts = |token: &Token| {
            !matches!(
                token,
                Token::Pipe | Token::Close | Token::RightParen | Token::Space | Token::Text(_) | Token::Open
            )
        };
        Ok(Some(match self.next_if(starts) {
            None => return Ok(None),
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Nil,
                "call" => return Err(Fault::unsupported("call")),
                word if REFUSED.contains(&word) || ["if", "with", "else", "end"].contains(&word) => {
                    return Err(Fault::syntax(format!("unexpected <{word}> in operand")));
                }
                word => Operand::Function(
                    Function::named(word)
                        .ok_or_else(|| Fault::syntax(format!("function {word:?} not defined")))?,
                ),
            },
            Some(Token::Dot) => Operand::Dot,
            Some(Token::Field(name)) => Operand::Fields(Box::new(Operand::Dot), vec![name]),
            Some(Token::Variable(name)) => {
                if !self.variables.contains(&name) {
                    return Err(Fault::syntax(format!("undefined variable {name:?}")));
                }
                Operand::Variable(name)
            }
            Some(Token::Quoted(text)) => Operand::Literal(Value::Text(text)),
            Some(Token::Char(value)) => Operand::Literal(Value::Int(i64::from(value))),
            Some(Token::Number(text)) => Operand::Literal(number(&text)?),
            Some(Token::LeftParen) => {
                self.deeper()?;
                let inner = self.pipeline("parenthesized pipeline", &Token::RightParen)?;
                self.depth -= 1;
                Operand::Pipeline(Box::new(inner))
            }
            Some(other) => return Err(unexpected(Some(&other), "operand")),
        }))
    }
}

/// A Go number: whole where it is written without a point and exponent.
fn number(text: &str) -> Result<Value, Fault> {
    let bad = || Fault::syntax(format!("bad number syntax: {text:?}"));
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if digits.ends_with('i') {
        return Err(Fault::unsupported("complex numbers"));
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, whole) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..)),
        Some("0o") => (8, lower.get(2..)),
        Some("0b") => (2, lower.get(2..)),
        _ if lower.len() > 1 && lower.starts_with('0') && !lower.contains(['.', 'e']) => (8, lower.get(1..)),
        _ => (10, Some(lower.as_str())),
    };
    let whole = whole.unwrap_or_default();
    // underscores stand between digits, or after the base's prefix
    let grouped = whole.contains("__") || whole.ends_with('_') || radix == 10 && whole.starts_with('_');
    if grouped {
        return Err(bad());
    }
    if radix == 10 && whole.contains(['.', 'e']) {
        if whole.contains('_') || whole.contains("inf") || whole.contains("nan") {
            return Err(Fault::unsupported("such a number"));
        }
        let value: f64 = whole.parse().map_err(|_| bad())?;
        if value.is_infinite() {
            return Err(bad());
        }
        return Ok(Value::Float(if negative { -value } else { value }));
    }
    if radix == 16 && whole.contains(['.', 'p']) {
        return Err(Fault::unsupported("hexadecimal fractions"));
    }
    let whole = whole.replace('_', "");
    if whole.starts_with(['+', '-']) {
        return Err(bad());
    }
    let value = i128::from_str_radix(&whole, radix).map_err(|_| bad())?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Value::Int).map_err(|_| Fault::value(format!("{text} overflows int")))
}
