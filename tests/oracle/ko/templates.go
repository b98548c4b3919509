package main

import (
	"bytes"
	"math/rand"
	"strings"
	"text/template"
	"unicode/utf8"
)

// The same values stand in tests/it/ko.rs.
var data = map[string]any{
	"Env":   map[string]string{"LDFLAGS": "", "NAME": "shop & co", "EMPTY": "", "QUOTED": `a"b'c\d<e>=f`, "VERSION": "v1.2.3"},
	"GoEnv": map[string]string{"GOOS": "linux", "GOARCH": "arm64"},
	"Git": map[string]any{
		"Branch": "main", "Tag": "v1.2.3", "ShortCommit": "0123456", "FullCommit": "0123456789abcdef0123456789abcdef01234567",
		"CommitDate": "2023-11-14T22:13:20Z", "CommitTimestamp": int64(1700000000), "IsDirty": false, "IsClean": true, "TreeState": "clean",
	},
	"Date":      "2023-11-14T22:13:20Z",
	"Timestamp": int64(1700000000),
}

// Templates that hold one rule each.
var known = []string{
	"", "-v", "no template", "}}", "{ {.Date}}", "{{.Date}}", "a{{.Date}}b{{.Timestamp}}c", "-X main.v={{.Git.Tag}} -X main.c={{ .Git.ShortCommit }}", "{{.}}", "{{.Env}}", "{{$}}",
	"{{.Git}}", "{{.Nope}}", "{{.Env.NOPE}}", "{{.Git.Nope}}", "{{.Env.NAME.X}}", "{{.Nope.X}}", "{{.Git.Tag.X}}", "{{.Timestamp.X}}", "{{$.Env.NAME}}", "{{$.Nope}}", "{{.Env.LDFLAGS}}",
	"{{", "{{}}", "{{ }}", "{{.Date", "{{.Date}", "{{.Date }}}", "{{{.Date}}", "{{. Date}}", "{{.Date.}}", "{{..Date}}", "{{.Env .Date}}", "{{.Date | .Date}}", "{{.Date|print}}", "{{.Date | print | len}}",
	"{{print .Date|}}", "{{|print}}", "{{print | | len}}", "{{\"a\" | \"b\"}}", "{{\"a\" \"b\"}}", "{{\"a\"\"b\"}}", "{{\"a\"}}", "{{`a\\n`}}", "{{\"a\\n\\t\\\\\\\"\\x41\\u00e9\\101\\U0001F600\"}}",
	"{{\"\\q\"}}", "{{\"\\xff\"}}", "{{\"a}}", "{{\"a\nb\"}}", "{{`a\nb`}}", "{{`a}}", "{{'a'}}", "{{'\\n'}}", "{{'\\''}}", "{{'ab'}}", "{{''}}", "{{'\\xe9'}}", "{{'é'}}", "{{'\\400'}}",
	"{{1}}", "{{-1}}", "{{+1}}", "{{- 1}}", "{{0x1F}}", "{{0o17}}", "{{017}}", "{{0b101}}", "{{1_000}}", "{{_1}}", "{{1__0}}", "{{1_}}", "{{0x_f}}", "{{1.5}}", "{{1.0}}", "{{.5}}", "{{1e3}}", "{{1e21}}", "{{1e-5}}",
	"{{123456789.0}}", "{{1e20}}", "{{-0.0}}", "{{9223372036854775807}}", "{{9223372036854775808}}", "{{-9223372036854775808}}", "{{18446744073709551615}}", "{{1i}}", "{{1a}}", "{{08}}", "{{1.2.3}}", "{{1+2}}", "{{1 + 2}}", "{{0x}}", "{{1e}}", "{{0x1p4}}", "{{1e400}}",
	"{{true}}", "{{false}}", "{{nil}}", "{{true.X}}", "{{nil | print}}", "{{print nil}}", "{{print nil nil}}", "{{if nil}}a{{end}}", "{{eq nil nil}}", "{{not nil}}",
	"a {{- .Date}}", "a{{.Date -}} b", "a \n\t{{- .Date -}}\r\n b", "a {{-.Date}}", "a {{.Date-}} b", "{{- .Date -}}", "a {{- /* c */ -}} b", "a{{/* c */}}b", "a {{/* c */ -}} b", "{{/* c }}", "{{/* c */ .Date}}", "{{ /* c */}}", "{{/**/}}", "{{- -1 -}}", "{{-1}}", "{{ -}}", "{{- -}}", "{{-}}",
	"a\t{{-\n.Date\n-}}\tb", "{{\n.Date\n}}", "{{.Date\r\n}}", "{{\"a\" -}} }} b", "{{`}}`}}", "{{\"}}\"}}",
	"{{$x := .Date}}{{$x}}", "{{$x := .Date}}{{$x = \"b\"}}{{$x}}", "{{$x}}", "{{$x = 1}}", "{{$x := 1}}{{$x := 2}}{{$x}}", "{{if true}}{{$x := 1}}{{$x}}{{end}}{{$x}}", "{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}",
	"{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "{{$x := .Env}}{{$x.NAME}}", "{{$x:=1}}{{$x}}", "{{$x, $y := .Env}}", "{{$x :=}}", "{{$x := 1 | print}}{{$x}}", "{{$ := 1}}{{$}}", "{{$x .Date}}", "{{$x := .Env}}{{$x.NOPE}}", "{{if false}}{{$x := 1}}{{else}}{{$x}}{{end}}", "{{($x := 1)}}{{$x}}", "{{print ($x := 1) $x}}",
	"{{if .Env.NAME}}a{{end}}", "{{if .Env.EMPTY}}a{{end}}", "{{if .Env.EMPTY}}a{{else}}b{{end}}", "{{if .Git.IsDirty}}a{{else if .Git.IsClean}}b{{else}}c{{end}}", "{{if false}}a{{else if false}}b{{else}}c{{end}}", "{{if .Nope}}a{{end}}", "{{if}}a{{end}}", "{{if true}}a", "{{end}}", "{{else}}", "{{if true}}a{{else}}b{{else}}c{{end}}",
	"{{if 0}}a{{else}}b{{end}}", "{{if 0.0}}a{{else}}b{{end}}", "{{if \"\"}}a{{else}}b{{end}}", "{{if .Env}}a{{end}}", "{{if true}}a{{end }}b", "{{if true}}a{{end x}}b", "{{if true }}a{{ else }}b{{ end }}", "{{iftrue}}a{{end}}", "{{if(true)}}a{{end}}", "{{if $x := .Env.NAME}}{{$x}}{{end}}", "{{if $x := .Env.EMPTY}}{{$x}}{{else}}[{{$x}}]{{end}}", "{{if true}}{{if false}}a{{else}}b{{end}}{{else}}c{{end}}", "{{else if true}}a{{end}}", "{{if true}}a{{elseif}}b{{end}}", "{{if true}}a{{else with .Date}}b{{end}}",
	"{{with .Env.NAME}}{{.}}{{end}}", "{{with .Env.EMPTY}}a{{else}}{{.Date}}{{end}}", "{{with .Git}}{{.Tag}}{{end}}", "{{with .Git}}{{$.Date}}{{end}}", "{{with $g := .Git}}{{$g.Tag}}{{end}}", "{{with .Env.EMPTY}}a{{else with .Env.NAME}}{{.}}{{end}}", "{{with .Git}}{{.Env}}{{end}}", "{{with .Env.EMPTY}}a{{else if .Date}}b{{end}}", "{{with}}{{end}}",
	"{{range .Env}}{{.}}{{end}}", "{{range 3}}a{{end}}", "{{define \"a\"}}x{{end}}{{template \"a\"}}", "{{block \"a\" .}}x{{end}}", "{{template \"a\"}}", "{{break}}", "{{continue}}", "{{call .Date}}",
	"{{and true false}}", "{{and 1 2}}", "{{and}}", "{{and 0 .Nope}}", "{{and 1 .Nope}}", "{{or 0 \"\" 3}}", "{{or 0 \"\"}}", "{{or 1 .Nope}}", "{{or}}", "{{not true}}", "{{not 0}}", "{{not}}", "{{not 1 2}}", "{{true | and 1}}", "{{0 | or 0}}", "{{1 | or .Env.EMPTY}}", "{{\"x\" | and}}", "{{and true (or false .Date)}}",
	"{{eq 1 1}}", "{{eq 1 2 1}}", "{{eq 1}}", "{{eq}}", "{{eq \"a\" \"a\"}}", "{{eq \"a\" 1}}", "{{eq 1 1.0}}", "{{eq .Git.Tag .Env.VERSION}}", "{{eq .Timestamp 1700000000}}", "{{eq true true}}", "{{ne 1 2}}", "{{ne 1 1 1}}", "{{ne \"a\" 1}}", "{{eq 1 \"a\" 1}}", "{{eq .Git.Tag \"x\" \"v1.2.3\"}}",
	"{{lt 1 2}}", "{{le 2 2}}", "{{gt 1 2}}", "{{ge 2 2}}", "{{lt \"a\" \"b\"}}", "{{lt 1 \"b\"}}", "{{lt true false}}", "{{lt 1.5 2.5}}", "{{lt 1 2.5}}", "{{gt .Timestamp 5}}", "{{le \"a\" \"é\"}}", "{{lt 1}}", "{{'a' | eq 97}}", "{{gt 2 1 | not}}",
	"{{len .Env.NAME}}", "{{len .Env}}", "{{len 3}}", "{{len \"é\"}}", "{{len}}", "{{len nil}}", "{{len true}}", "{{.Env.NAME | len}}",
	"{{index .Env \"NAME\"}}", "{{index .Env \"NOPE\"}}", "{{index .Git \"Tag\"}}", "{{index .Git \"Nope\"}}", "{{index . \"Env\" \"NAME\"}}", "{{index . \"Nope\" \"NAME\"}}", "{{index .Env 1}}", "{{index .Env}}", "{{index}}", "{{index \"abc\" 1}}", "{{index \"abc\" 3}}", "{{index \"abc\" -1}}", "{{index \"abc\" \"a\"}}", "{{index 1 2}}", "{{index .Env \"NAME\" 0}}", "{{\"NAME\" | index .Env}}", "{{if index .Git \"Nope\"}}a{{else}}b{{end}}", "{{printf \"%v\" (index .Git \"Nope\")}}", "{{print (index .Git \"Nope\")}}", "{{with index .Git \"Nope\"}}a{{else}}b{{end}}", "{{(index . \"Git\").Tag}}", "{{(index .Git \"Nope\").X}}",
	"{{slice \"abcdef\" 1 3}}", "{{slice \"abcdef\" 2}}", "{{slice \"abcdef\"}}", "{{slice \"abcdef\" 1 2 3}}", "{{slice \"abc\" 2 1}}", "{{slice \"abc\" 0 9}}", "{{slice \"abc\" -1}}", "{{slice \"é\" 0 1}}", "{{slice \"é\" 0 2}}", "{{slice .Env}}", "{{slice .Git.FullCommit 0 7}}", "{{slice \"abc\" \"a\"}}", "{{slice}}", "{{slice \"abc\" 3}}",
	"{{print}}", "{{print 1 2}}", "{{print \"a\" \"b\"}}", "{{print 1 \"a\" 2 3}}", "{{print true false 1.5}}", "{{println \"a\" 1}}", "{{println}}", "{{print .Env}}", "{{print nil 1}}", "{{print \"a\" nil}}",
	"{{html .Env.QUOTED}}", "{{js .Env.QUOTED}}", "{{urlquery .Env.QUOTED}}", "{{html 1 2}}", "{{html \"a\" \"b\"}}", "{{js \"a\\nbé\"}}", "{{urlquery \"a b+c/é~_-.\"}}", "{{html}}", "{{.Env.NAME | html}}", "{{html nil}}", "{{html .Env}}", "{{js \"\\x7f\"}}", "{{js \"\\u2028\"}}",
	"{{nope}}", "{{nope .Date}}", "{{print.Date}}", "{{print(.Date)}}", "{{print (.Date)}}", "{{(print .Date)}}", "{{((.Date))}}", "{{()}}", "{{(.Date}}", "{{.Date)}}", "{{(.Env).NAME}}", "{{(print .Date).X}}", "{{print (print 1) (print 2)}}", "{{(1)}}", "{{(1).X}}", "{{if (and .Git.IsClean (ne .Git.Tag \"\"))}}{{.Git.Tag}}{{end}}", "{{(.Date) (.Date)}}",
	"{{.Date,}}", "{{.Date, .Date}}", "{{.Date:}}", "{{.Date!}}", "{{!}}", "{{#}}", "{{.Dat\u00e9}}", "{{\u00e9}}", "{{.Env.NAME.}}", "{{$.}}", "{{.$}}", "{{$x.}}", "{{\\}}", "{{.Date=}}", "{{=}}", "{{:=}}", "{{.Env.A-B}}", "{{if}}", "{{end", "{{print if}}", "{{print end}}", "{{print range}}", "{{\x00}}", "a\x00{{.Date}}",
	"{{printf \"%s-%s\" .Git.Tag .Git.ShortCommit}}", "{{printf \"%d\" .Timestamp}}", "{{printf \"%v %v %v\" 1 \"a\" true}}", "{{printf \"%q\" .Env.QUOTED}}", "{{printf \"%x\" \"abc\"}}", "{{printf \"%X\" 255}}", "{{printf \"%x\" -255}}", "{{printf \"%#x\" 255}}", "{{printf \"%o %b %c\" 8 5 'x'}}", "{{printf \"%5d|%-5d|%05d|%+d|% d\" 42 42 42 42 42}}", "{{printf \"%5s|%-5s|%.2s\" \"ab\" \"ab\" \"abcdef\"}}", "{{printf \"%t\" true}}", "{{printf \"100%%\"}}", "{{printf \"%\"}}", "{{printf \"%d\" \"a\"}}", "{{printf \"%s\" 1}}", "{{printf \"%d\"}}", "{{printf \"a\" 1}}", "{{printf \"%!\" 1}}", "{{printf}}", "{{printf 1}}", "{{printf .Env.NAME}}", "{{.Date | printf \"%s!\"}}", "{{printf \"%s\" nil}}", "{{printf \"%v\" nil}}", "{{printf \"%.3d|%8.3d|%-8.3d|%08.3d\" 7 7 7 7}}", "{{printf \"%.0d|\" 0}}", "{{printf \"%05d|%+05d\" -42 42}}", "{{printf \"%6q|\" \"a\"}}", "{{printf \"%05s|\" \"ab\"}}", "{{printf \"%5t|\" true}}", "{{printf \"%.2q\" \"abc\"}}", "{{printf \"%.2x\" \"abc\"}}", "{{printf \"%v\" .Env}}", "{{printf \"%v\" 1.5}}", "{{printf \"%.2f\" 1.5}}", "{{printf \"%T\" 1}}", "{{printf \"%*d\" 5 1}}", "{{printf \"%[1]d\" 1}}", "{{printf \"%#v\" 1}}", "{{printf \"%é\" 1}}", "{{printf \"%5\" 1}}", "{{printf \"%c\" 233}}", "{{printf \"%é|%d\" 1 2}}", "{{printf \"%5v|%-5v|\" \"é\" 1}}", "{{printf \"%q\" 'x'}}", "{{printf \"%U\" 'x'}}", "{{printf \"% x\" \"abc\"}}", "{{printf \"%-05d|\" 4}}", "{{printf \"%+s|%+v\" \"a\" 1}}", "{{printf \"%#o\" 8}}", "{{printf \"%#b\" 5}}", "{{printf \"%3c|%-3c|\" 'a' 'b'}}", "{{printf \"%#5x|%#05x\" 10 10}}", "{{printf \"%x\" 0}}", "{{printf \"%+q\" \"é\"}}", "{{printf \"%q\" \"é\\x00\\x7f\"}}",
}

type templateCase struct {
	Template string  `json:"template"`
	Out      *string `json:"out,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func run(text string) templateCase {
	result := templateCase{Template: text}
	parsed, err := template.New("argsTmpl").Option("missingkey=error").Parse(text)
	if err != nil {
		result.Error = "parse"
		return result
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, data); err != nil {
		result.Error = "execute"
		return result
	}
	made := out.String()
	if !utf8.ValidString(made) {
		result.Error = "not UTF-8"
		return result
	}
	result.Out = &made
	return result
}

func templates(seed int64, count int) {
	for _, text := range known {
		line(run(text))
	}
	random := rand.New(rand.NewSource(seed))
	for range count {
		line(run(generate(random)))
	}
}

func pick(random *rand.Rand, from ...string) string {
	return from[random.Intn(len(from))]
}

// generate makes templates that are mostly right: of words that fit, in places where they may stand.
func generate(random *rand.Rand) string {
	if random.Intn(5) == 0 {
		return soup(random)
	}
	var out strings.Builder
	for range 1 + random.Intn(3) {
		out.WriteString(pick(random, "", "a", " ", "-X main.v=", "\n", " b "))
		out.WriteString(action(random, 2))
	}
	return out.String()
}

// soup makes tokens in any order.
func soup(random *rand.Rand) string {
	var out strings.Builder
	out.WriteString("{{")
	for range 1 + random.Intn(6) {
		out.WriteString(pick(random, " ", " ", "", "-", ".Date", ".Env.NAME", "$", "$x", ":=", "=", "|", "(", ")", "print", "len", "eq", "1", "\"a\"", "if", "end", "else", ".", "nil", "true", ",", "/*", "*/"))
	}
	out.WriteString(pick(random, "}}", "}}", " }}", " -}}", "}}b{{end}}"))
	return out.String()
}

func open(random *rand.Rand) string   { return pick(random, "{{", "{{", "{{ ", "{{- ") }
func close_(random *rand.Rand) string { return pick(random, "}}", "}}", " }}", " -}}") }

func action(random *rand.Rand, depth int) string {
	if depth > 0 && random.Intn(3) == 0 {
		word := pick(random, "if", "with", "if")
		text := open(random) + word + " " + pipeline(random, depth-1) + close_(random) + pick(random, "x", " x ", action(random, depth-1))
		if random.Intn(2) == 0 {
			text += open(random) + "else" + close_(random) + pick(random, "y", " y ", action(random, depth-1))
		}
		return text + open(random) + "end" + close_(random)
	}
	if random.Intn(6) == 0 {
		return open(random) + "$x := " + pipeline(random, depth) + close_(random) + open(random) + "$x" + close_(random)
	}
	return open(random) + pipeline(random, depth) + close_(random)
}

func pipeline(random *rand.Rand, depth int) string {
	text := command(random, depth)
	for random.Intn(4) == 0 {
		text += pick(random, " | ", "|", " |") + pick(random, "print", "len", "html", "js", "urlquery", "printf \"%v\"", "not", "eq 1", "and 1", "or 0", "index .Env", "printf \"%5v|\"")
	}
	return text
}

func command(random *rand.Rand, depth int) string {
	switch random.Intn(8) {
	case 0:
		return pick(random, "eq", "ne", "lt", "le", "gt", "ge") + " " + term(random, depth) + " " + term(random, depth)
	case 1:
		return pick(random, "and", "or", "print", "println", "html", "js", "urlquery") + " " + term(random, depth) + " " + term(random, depth)
	case 2:
		return pick(random, "not", "len", "print") + " " + term(random, depth)
	case 3:
		return "index " + pick(random, ".Env", ".Git", ".", "\"abc\"") + " " + pick(random, "\"NAME\"", "\"Tag\"", "\"Env\"", "1", "\"NOPE\"")
	case 4:
		return "slice " + pick(random, ".Git.FullCommit", "\"abcdef\"", ".Env.NAME") + " " + pick(random, "0", "1", "2", "3") + pick(random, "", " 5", " 2", " 7")
	case 5:
		return "printf \"" + pick(random, "%v", "%s", "%d", "%q", "%x", "%5v|", "%-4v|", "%05d", "a%vb") + "\" " + term(random, depth)
	default:
		return term(random, depth)
	}
}

func term(random *rand.Rand, depth int) string {
	if depth > 0 && random.Intn(4) == 0 {
		return "(" + pipeline(random, depth-1) + ")"
	}
	return pick(random, ".Date", ".Timestamp", ".Env.NAME", ".Env.EMPTY", ".Env.QUOTED", ".Env.VERSION", ".GoEnv.GOOS", ".Git.Tag", ".Git.IsDirty", ".Git.IsClean", ".Git.CommitTimestamp",
		"$.Date", "$.Git.Tag", "true", "false", "0", "1", "-7", "\"\"", "\"a\"", "`b`", "'c'", "1.5", ".Env.NOPE", ".Git", ".Env", ".", "nil", "1700000000", "\"v1.2.3\"")
}
