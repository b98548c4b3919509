// The oracle: what the Go libraries behind `docker build` make of generated patterns, filters and trees.
//
//	go run . patterns SEED COUNT > patterns.json
//	go run . filters SEED COUNT > filters.json
//
// The committed tables have seed 1 and 450 and 400 cases; tests/it/filesync/oracle.rs compares them with ours. Put another
// seed's tables in their place to fuzz. Bytes stand in the JSON as the characters of the same number, as names need not
// be UTF-8.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	gofs "io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil"
)

func main() {
	if len(os.Args) != 4 {
		fail("usage: oracle patterns|filters SEED COUNT")
	}
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	random := rand.New(rand.NewSource(seed))
	switch os.Args[1] {
	case "patterns":
		patterns(random, count)
	case "filters":
		filters(random, count)
	default:
		fail("patterns or filters")
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

// text carries bytes through JSON.
type text string

func (t text) MarshalJSON() ([]byte, error) {
	runes := make([]rune, 0, len(t))
	for i := 0; i < len(t); i++ {
		runes = append(runes, rune(t[i]))
	}
	return json.Marshal(string(runes))
}

func texts(in []string) []text {
	out := make([]text, len(in))
	for i, s := range in {
		out[i] = text(s)
	}
	return out
}

// lines writes one JSON value a line within an array, so that a change of the table can be read.
func lines[T any](key string, values []T, last bool) {
	fmt.Printf("%q:[\n", key)
	for i, value := range values {
		line, err := json.Marshal(value)
		check(err)
		comma := ","
		if i == len(values)-1 {
			comma = ""
		}
		fmt.Printf("%s%s\n", line, comma)
	}
	if last {
		fmt.Println("]")
	} else {
		fmt.Println("],")
	}
}

var matchPaths = []string{
	"a", "a/b", "a/b/c", "a/b/c/d", "a/foo", "a/foo.txt", "aa", "aab", "ab", "abc", "a.b", "a+b", "a|b", "a{2}", "a-b", "a^b",
	"a$", "axb", "a]", "A", "b", "b/a", "b/a/b", "d", "2", "_", "[", "]", "[a]", "*", "?", "\\", "a\\b", "!a", "#a", " a", "a b",
	"{a,b}", "(a)", "foo", "foo/bar", "foo/bar.txt", "foo/bar/baz", "foo.txt", "foofoo", "xfoo", ".hidden", ".hidden/a", "..a",
	"é", "é/a", "aé", "日本", "a\nb", "\n", "\xff", "a\xffb", "\xe2\x82", "docs/README.md", "docs/a/README.md", "Qa", "E",
	"deep/a/b/c/foo", "deep/x/foo.txt",
}

// Patterns that hold one rule each.
var knownPatterns = [][]string{
	{}, {""}, {" "}, {"a"}, {" a "}, {"\u00a0a\u3000"}, {"a/"}, {"/a"}, {"./a"}, {"a/../b"}, {".."}, {"."}, {"../a"}, {"*"}, {"**"},
	{"**/"}, {"*/*"}, {"**/a"}, {"a/**"}, {"a/**/"}, {"a**"}, {"a/**/c"}, {"**/foo/**"}, {"**/b/c"}, {"**a"}, {"***"}, {"**/**"},
	{"**/*.txt"}, {"**/foo*"}, {"foo/**/*.txt"}, {"?"}, {"a?b"}, {"[a-c]"}, {"[^a]"}, {"[!a]"}, {"[a"}, {"a["}, {"[]a]"}, {"[a-]"},
	{"[-a]"}, {"[b-a]"}, {"[a-b-c]"}, {"\\"}, {"a\\"}, {"\\*"}, {"\\a"}, {"\\d"}, {"\\w*"}, {"\\S"}, {"\\pL"}, {"\\p{Greek}"},
	{"\\PL"}, {"\\Qa*"}, {"\\Qa\\E*"}, {"\\E"}, {"\\x61"}, {"\\x{e9}*"}, {"\\141*"}, {"\\1"}, {"\\bfoo"}, {"\\A*"}, {"a\\z*"}, {"[\\d]"},
	{"[[:alpha:]]"}, {"[[:alpha:]"}, {"[[:nope:]]"}, {"[*]"}, {"[?]"}, {"[a*]b"}, {"[**]"}, {"[a?b]"}, {"[.]*"}, {"[\\]]"}, {"[\\[]*"},
	{"[a&&b]"}, {"[a--b]"}, {"a|b"}, {"a|b*"}, {"*|foo"}, {"a{2}"}, {"a{2}*"}, {"*{2}"}, {"a{,2}*"}, {"a{2,1}*"}, {"a{1001}*"},
	{"{a,b}*"}, {"{2}*"}, {"a.b"}, {"a.?"}, {"a+b"}, {"a+*"}, {"(a)"}, {"(a)*"}, {"a$"}, {"$*"}, {"^a"}, {"^a*"}, {"a^b"}, {"a^*"},
	{"\ufeffa"}, {"\ufeffa*"}, {"\ufeff**/foo"}, {"\xff"}, {"\xff*"}, {"[\xff]"}, {"?\xff?"}, {"é"}, {"?/a"}, {"[é]"}, {"日*"}, {"a\nb"},
	{"a?b\n"}, {"**\n"}, {"!"}, {"! "}, {"!a"}, {"a", "!a"}, {"!a", "a"}, {"*", "!a"}, {"*", "! a"}, {"*", "!/a"}, {"*", "!./a"},
	{"*", "!a/b"}, {"a", "!a/b"}, {"a", "!a/b", "a/b/c"}, {"a/**", "!a/b"}, {"**", "!**/foo"}, {"**", "!**/*.txt"}, {"*", "!foo/*"},
	{"foo", "!foo/bar", "foo/bar/baz"}, {"docs/*", "!docs/README.md"}, {"docs", "!docs/a/**"}, {"*", "!*"}, {"!*", "*"}, {"a", ""},
	{"*", "!["}, {"a", "!\\q*"}, {"\\q*", "a"}, {"#a"}, {"\\#a"}, {"\\!a"}, {"foo//bar"}, {"foo/./bar"}, {"[f]oo"}, {"[fx]oo/b*"},
}

var pieces = []string{
	"a", "a", "b", "foo", "foo", "bar", ".txt", ".", "é", "2", "A", "*", "*", "*", "**", "**", "**/", "?", "/", "/", "/", "/", "//",
	"[ab]", "[^a]", "[a-c]", "[", "]", "\\", "\\*", "\\.", "\\d", "\\w", "\\pL", "^", "$", "+", "(", ")", "|", "{2}", "{", "}", "-",
	"..", " ", "!", "\xff", "[[:alpha:]]", "\\Q", "\\E", "\\x61", "[\\]", "[*]",
}

func randomPattern(random *rand.Rand) string {
	var b strings.Builder
	if random.Intn(5) == 0 {
		b.WriteByte('!')
	}
	for n := 1 + random.Intn(5); n > 0; n-- {
		b.WriteString(pieces[random.Intn(len(pieces))])
	}
	return b.String()
}

type matchCase struct {
	Patterns []text `json:"p"`
	// one character a path: 0, 1, or e for an error; empty where the patterns are refused
	Whole string `json:"m"`
	// the same as found while walking from the root
	Walked string `json:"w"`
}

func matchAll(list []string) matchCase {
	result := matchCase{Patterns: texts(list)}
	matcher, err := patternmatcher.New(list)
	if err != nil {
		return result
	}
	char := func(matched bool, err error) string {
		switch {
		case err != nil:
			return "e"
		case matched:
			return "1"
		default:
			return "0"
		}
	}
	for _, path := range matchPaths {
		result.Whole += char(matcher.MatchesOrParentMatches(path))
		result.Walked += char(walkTo(matcher, path))
	}
	return result
}

func walkTo(matcher *patternmatcher.PatternMatcher, path string) (bool, error) {
	var above patternmatcher.MatchInfo
	for i := 0; i < len(path); i++ {
		if path[i] == '/' {
			_, info, err := matcher.MatchesUsingParentResults(path[:i], above)
			if err != nil {
				return false, err
			}
			above = info
		}
	}
	matched, _, err := matcher.MatchesUsingParentResults(path, above)
	return matched, err
}

func patterns(random *rand.Rand, count int) {
	var cases []matchCase
	for _, list := range knownPatterns {
		cases = append(cases, matchAll(list))
	}
	for len(cases) < count {
		list := make([]string, 1+random.Intn(3))
		for i := range list {
			list[i] = randomPattern(random)
		}
		cases = append(cases, matchAll(list))
	}
	fmt.Println("{")
	lines("paths", texts(matchPaths), false)
	lines("cases", cases, true)
	fmt.Println("}")
}

// An entry: a path ending in a slash is a directory, one with a target a symbolic link.
type entry struct {
	Path   text `json:"p"`
	Target text `json:"l,omitempty"`
}

var trees = [][]entry{
	{
		{Path: "Dockerfile"}, {Path: ".dockerignore"}, {Path: "foo.txt"}, {Path: "foo/"}, {Path: "foo/a.go"}, {Path: "foo/bar/"},
		{Path: "foo/bar/b.go"}, {Path: "foo/bar/c.txt"}, {Path: "foo/empty/"}, {Path: "foo-x/"}, {Path: "foo-x/a.go"},
		{Path: "docs/"}, {Path: "docs/README.md"}, {Path: "docs/a/"}, {Path: "docs/a/README.md"}, {Path: "docs/a/b/"},
		{Path: "docs/a/b/x"}, {Path: "é/"}, {Path: "é/ü"}, {Path: "x y"}, {Path: "[a]"}, {Path: "a*b"}, {Path: "\xff"},
	},
	{
		{Path: "a/"}, {Path: "a/b/"}, {Path: "a/b/x"}, {Path: "a/b/y"}, {Path: "a/up", Target: "../c/z"}, {Path: "a/l", Target: "b"},
		{Path: "abs", Target: "/c/z"}, {Path: "c/"}, {Path: "c/z"}, {Path: "c/z2", Target: "z"}, {Path: "dir", Target: "a"},
		{Path: "dangling", Target: "nowhere/at/all"}, {Path: "loop1", Target: "loop2"}, {Path: "loop2", Target: "loop1"},
		{Path: "self", Target: "self/x"}, {Path: "out", Target: "../../c/z"}, {Path: "root", Target: "/"}, {Path: "dot", Target: "."},
		{Path: "chain1", Target: "dir/l/x"}, {Path: "w1.conf", Target: "c/z"}, {Path: "w2.conf"}, {Path: "w3.conf", Target: "a/b/../b/y"},
		{Path: "wd1", Target: "a/b"}, {Path: "wd2/"}, {Path: "wd2/x"},
	},
}

var filterNames = []string{
	"a", "b", "c", "x", "z", "foo", "bar", "foo-x", "docs", "README.md", "foo.txt", "a.go", "l", "up", "dir", "abs", "root", "dot",
	"self", "loop1", "chain1", "w1.conf", "w*", "w?.conf", "*.conf", "*", "**", "*.go", "[a-f]*", "..", ".", "", "dangling", "out",
	"wd*", "é", "\\[a]", "a\\*b", "nowhere", "d*",
}

func randomPath(random *rand.Rand) string {
	parts := make([]string, 1+random.Intn(3))
	for i := range parts {
		parts[i] = filterNames[random.Intn(len(filterNames))]
	}
	path := strings.Join(parts, "/")
	if random.Intn(8) == 0 {
		path = "/" + path
	}
	return path
}

func randomPaths(random *rand.Rand, exceptions bool) []string {
	var list []string
	for n := random.Intn(4); n > 0; n-- {
		path := randomPath(random)
		if exceptions && random.Intn(4) == 0 {
			path = "!" + path
		}
		list = append(list, path)
	}
	return list
}

type filterCase struct {
	Tree    int    `json:"t"`
	Include []text `json:"i,omitempty"`
	Exclude []text `json:"x,omitempty"`
	Follow  []text `json:"f,omitempty"`
	// the entries sent, in order, as places in the sorted tree; absent where the filters are refused
	Sent *[]int `json:"s"`
}

var knownFilters = []struct {
	tree                     int
	include, exclude, follow []string
}{
	{0, nil, nil, nil}, {0, []string{""}, nil, nil}, {0, []string{"foo"}, nil, nil}, {0, []string{"foo/bar/b.go"}, nil, nil},
	{0, []string{"**/*.go"}, nil, nil}, {0, []string{"foo/*"}, nil, nil}, {0, []string{"foo/**"}, nil, nil}, {0, []string{"*"}, nil, nil},
	{0, []string{"."}, nil, nil}, {0, []string{"/foo"}, nil, nil}, {0, []string{"foo", "!foo/bar"}, nil, nil},
	{0, nil, []string{"*"}, nil}, {0, nil, []string{"**"}, nil}, {0, nil, []string{"foo"}, nil}, {0, nil, []string{"*", "!foo/bar/b.go"}, nil},
	{0, nil, []string{"docs", "!docs/a/b"}, nil}, {0, nil, []string{"**/*.go", "!foo/*.go"}, nil}, {0, nil, []string{"*", "!**/*.md"}, nil},
	{0, nil, []string{"**", "!docs/*"}, nil}, {0, []string{"foo", "docs"}, []string{"**/bar", "docs/a"}, nil},
	{0, []string{"["}, nil, nil}, {0, []string{"foo["}, nil, nil}, {0, nil, []string{"foo*["}, nil},
	{0, nil, []string{".dockerignore", "Dockerfile"}, nil}, {0, []string{"\xff"}, nil, nil}, {0, nil, []string{"?"}, nil},
	{1, nil, nil, []string{"a/up"}}, {1, nil, nil, []string{"abs"}}, {1, nil, nil, []string{"dir/b/x"}}, {1, nil, nil, []string{"dangling"}},
	{1, nil, nil, []string{"loop1"}}, {1, nil, nil, []string{"self"}}, {1, nil, nil, []string{"self/y"}}, {1, nil, nil, []string{"out"}},
	{1, nil, nil, []string{"root"}}, {1, nil, nil, []string{"root/c/z"}}, {1, nil, nil, []string{"dot"}}, {1, nil, nil, []string{"chain1"}},
	{1, nil, nil, []string{"*.conf"}}, {1, nil, nil, []string{"w*/x"}}, {1, nil, nil, []string{"wd*/x"}}, {1, nil, nil, []string{"*"}},
	{1, nil, nil, []string{"dir/l/x", "dir/l/y"}}, {1, nil, nil, []string{""}}, {1, nil, nil, []string{"/"}}, {1, nil, nil, []string{".."}},
	{1, nil, nil, []string{"../c"}}, {1, nil, nil, []string{"nowhere"}}, {1, nil, nil, []string{"w2.conf/*"}}, {1, nil, nil, []string{"["}},
	{1, []string{"c"}, nil, []string{"chain1"}}, {1, []string{"c/z"}, nil, []string{"."}}, {1, []string{"/c", "a"}, nil, []string{"abs"}},
	{1, nil, []string{"a"}, []string{"dir"}}, {1, nil, []string{"c"}, []string{"*.conf"}},
}

// sorted puts parents first and siblings in byte order, as a walk does.
func sorted(tree []entry) []entry {
	tree = append([]entry(nil), tree...)
	key := func(e entry) string { return strings.ReplaceAll(strings.TrimSuffix(string(e.Path), "/"), "/", "\x00") }
	sort.Slice(tree, func(i, j int) bool { return key(tree[i]) < key(tree[j]) })
	return tree
}

func build(tree []entry) string {
	root, err := os.MkdirTemp("", "oracle")
	check(err)
	for _, e := range tree {
		path := filepath.Join(root, string(e.Path))
		switch {
		case e.Target != "":
			check(os.Symlink(string(e.Target), path))
		case strings.HasSuffix(string(e.Path), "/"):
			check(os.Mkdir(path, 0o755))
		default:
			check(os.WriteFile(path, []byte(e.Path), 0o644))
		}
	}
	return root
}

func send(root string, places map[string]int, c filterCase, include, exclude, follow []string) filterCase {
	c.Include, c.Exclude, c.Follow = texts(include), texts(exclude), texts(follow)
	all, err := fsutil.NewFS(root)
	check(err)
	filtered, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{
		IncludePatterns: include, ExcludePatterns: exclude, FollowPaths: follow,
	})
	if err != nil {
		return c
	}
	sent := []int{}
	err = filtered.Walk(context.Background(), "/", func(path string, _ gofs.DirEntry, err error) error {
		sent = append(sent, places[path])
		return err
	})
	if err == nil {
		c.Sent = &sent
	}
	return c
}

func filters(random *rand.Rand, count int) {
	var roots []string
	var ordered [][]entry
	var places []map[string]int
	for _, tree := range trees {
		tree = sorted(tree)
		root := build(tree)
		defer os.RemoveAll(root)
		place := map[string]int{}
		for i, e := range tree {
			place[strings.TrimSuffix(string(e.Path), "/")] = i
		}
		roots, ordered, places = append(roots, root), append(ordered, tree), append(places, place)
	}
	var cases []filterCase
	for _, k := range knownFilters {
		cases = append(cases, send(roots[k.tree], places[k.tree], filterCase{Tree: k.tree}, k.include, k.exclude, k.follow))
	}
	for len(cases) < count {
		t := random.Intn(len(trees))
		include, exclude, follow := randomPaths(random, true), randomPaths(random, true), randomPaths(random, false)
		switch random.Intn(4) {
		case 0:
			include = nil
		case 1:
			follow = nil
		}
		cases = append(cases, send(roots[t], places[t], filterCase{Tree: t}, include, exclude, follow))
	}
	fmt.Println("{")
	lines("trees", ordered, false)
	lines("cases", cases, true)
	fmt.Println("}")
}
