// What Go's text/template, ko and go/build make of given and generated input.
//
//	go run . templates SEED COUNT > templates.jsonl
//	go run . builds > builds.jsonl
//	go run . sources > sources.jsonl
//
// tests/it/ko.rs compares the committed tables (seed 1, 600 templates) with src/kinds/ko. An error is a fact only: its text is
// Go's own. One JSON object a line.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "templates":
		seed, err := strconv.ParseInt(os.Args[2], 10, 64)
		check(err)
		count, err := strconv.Atoi(os.Args[3])
		check(err)
		templates(seed, count)
	case len(os.Args) == 2 && os.Args[1] == "builds":
		builds()
	case len(os.Args) == 2 && os.Args[1] == "sources":
		sources()
	default:
		fmt.Fprintln(os.Stderr, "usage: ko templates SEED COUNT | builds | sources")
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func line(value any) {
	text, err := json.Marshal(value)
	check(err)
	fmt.Println(string(text))
}
