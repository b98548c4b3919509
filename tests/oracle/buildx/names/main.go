// The flags of `docker buildx build`, by buildx itself.
//
//	go run ./names > names.json
//
// docs/reference/build.md has a row for each; tests/it/build_table.rs holds it against the committed list.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/docker/buildx/commands"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/pflag"
)

type row struct {
	Name    string `json:"name"`
	Short   string `json:"short"`
	Type    string `json:"type"`
	Default string `json:"default"`
	Hidden  bool   `json:"hidden"`
}

func main() {
	cli, err := command.NewDockerCli()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	build, _, err := commands.NewRootCmd("buildx", false, cli).Find([]string{"build"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rows := map[string]row{}
	add := func(f *pflag.Flag) {
		rows[f.Name] = row{f.Name, f.Shorthand, f.Value.Type(), f.DefValue, f.Hidden}
	}
	build.InheritedFlags().VisitAll(add)
	build.Flags().VisitAll(add)
	lines := []string{}
	for _, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		lines = append(lines, string(line))
	}
	sort.Strings(lines)
	fmt.Printf("[\n%s\n]\n", strings.Join(lines, ",\n"))
}
