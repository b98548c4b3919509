package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/ko/pkg/build"
	"github.com/google/ko/pkg/commands/options"
)

// The tree that every case is built in; the same stands in tests/it/ko.rs.
var tree = map[string]string{
	"go.mod":            "module example.com/App\n\ngo 1.24\n",
	"main.go":           "package main\n\nfunc main() {}\n",
	"cmd/a/main.go":     "package main\n\nfunc main() {}\n",
	"cmd/b/main.go":     "package main\n\nfunc main() {}\n",
	"cmd/b/more.go":     "package main\n",
	"lib/lib.go":        "package lib\n",
	"sub/go.mod":        "module example.com/sub\n\ngo 1.24\n",
	"sub/main.go":       "package main\n\nfunc main() {}\n",
	"sub/cmd/c/main.go": "package main\n\nfunc main() {}\n",
}

// A configuration, what is built by it, and for which platform.
type buildCase struct {
	Config   string `json:"config"`
	Import   string `json:"import"`
	Platform string `json:"platform"`
}

var buildCases = []buildCase{
	{"", ".", "linux/amd64"},
	{"", "./cmd/a", "linux/arm64"},
	{"", "./cmd/a", "linux/arm/v7"},
	{"", "./cmd/a", "linux/arm/v6"},
	{"", "./cmd/a", "linux/arm/v8"},
	{"", "./cmd/a", "linux/arm64/v8"},
	{"", "./cmd/a", "linux/amd64/v3"},
	{"", "./cmd/a", "linux/s390x"},
	{"", "./lib", "linux/amd64"},
	{"defaultEnv: [A=1, B=2]\n", ".", "linux/amd64"},
	{"defaultEnv: A=1 B=2\n", ".", "linux/amd64"},
	{"DEFAULTENV: [A=1]\ndefaultflags: [-v]\nDefaultLdFlags: [-s]\n", ".", "linux/amd64"},
	{"defaultEnv: [CGO_ENABLED=1, GOOS=plan9, GOARM=5]\n", ".", "linux/arm/v7"},
	{"defaultFlags: [-tags, netgo, -v]\n", ".", "linux/amd64"},
	{"defaultFlags: -tags netgo\n", ".", "linux/amd64"},
	{"defaultFlags: [-p, 4]\n", ".", "linux/amd64"},
	{"defaultFlags: ['-tags=a b']\n", ".", "linux/amd64"},
	{"defaultLdflags: [-s, -w]\n", ".", "linux/amd64"},
	{"defaultLdflags: -s -w\n", ".", "linux/amd64"},
	{"defaultLdflags: ['-X main.v={{.Git.Tag}}', '-X main.t={{.Date}}-{{.Timestamp}}']\n", ".", "linux/amd64"},
	{"defaultLdflags: '-X main.v={{ .Git.Tag }}'\n", ".", "linux/amd64"},
	{"defaultFlags: ['-tags={{.Env.GOARCH}}', '-X={{.GoEnv.GOOS}}-{{.GoEnv.GOARCH}}-{{.GoEnv.CGO_ENABLED}}']\n", ".", "linux/arm64"},
	{"defaultEnv: [V=9]\ndefaultLdflags: ['-X main.v={{.Env.V}}', '{{.Env.LDFLAGS}}']\n", ".", "linux/amd64"},
	{"defaultLdflags: ['{{.Env.NOPE}}']\n", ".", "linux/amd64"},
	{"defaultLdflags: ['{{.Git.Branch}} {{.Git.ShortCommit}} {{.Git.FullCommit}} {{.Git.CommitDate}} {{.Git.CommitTimestamp}} {{.Git.IsDirty}} {{.Git.IsClean}} {{.Git.TreeState}}']\n", ".", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: [A=1]\n  flags: [-v]\n  ldflags: [-s]\ndefaultEnv: [B=2]\ndefaultFlags: [-x]\ndefaultLdflags: [-w]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: [A=1]\ndefaultEnv: [B=2]\ndefaultFlags: [-x]\ndefaultLdflags: [-w]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: [A=1]\ndefaultEnv: [B=2]\ndefaultFlags: [-x]\ndefaultLdflags: [-w]\n", "./cmd/b", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  flags: []\n  ldflags: []\ndefaultFlags: [-x]\ndefaultLdflags: [-w]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: cmd/a/main.go\n  ldflags: -s   -w\n  flags: -v   -tags x\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- dir: cmd\n  main: ./a\n  ldflags: -s\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- dir: cmd/a\n  ldflags: -s\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- dir: sub\n  ldflags: -s\n", "./sub", "linux/amd64"},
	{"builds:\n- dir: sub\n  main: cmd/c\n  ldflags: -c\n", "./sub/cmd/c", "linux/amd64"},
	{"builds:\n- ID: x\n  Main: ./cmd/a\n  LDFLAGS: [-s]\n  nope: 1\nnope: 2\n", "./cmd/a", "linux/amd64"},
	{"builds:\n  main: ./cmd/a\n  ldflags: -s\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: A=1\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: [A]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/nope\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  flags: [-toolexec, x]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  flags: [--toolexec=x]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  flags: ['-{{\"toolexec\"}}=x']\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  flags: [-toolexecx, -ldflags=-toolexec]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  ldflags: [-toolexec=x]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: [GOFLAGS=-v -toolexec=x]\n", "./cmd/a", "linux/amd64"},
	{"builds:\n- main: ./cmd/a\n  env: ['GOFLAGS=-tags=-toolexec']\n", "./cmd/a", "linux/amd64"},
	{"defaultEnv: [GOFLAGS=--toolexec x]\n", ".", "linux/amd64"},
	{"defaultFlags: [-v, -v]\nbuilds:\n- main: .\n  flags: ['']\n", ".", "linux/amd64"},
	{"defaultBaseImage: r.example.com/base:1\n", ".", "linux/amd64"},
	{"defaultBaseImage: 'NOT AN IMAGE'\n", ".", "linux/amd64"},
	{"defaultBaseImage: busybox\nbaseImageOverrides:\n  example.com/App/cmd/a: r.example.com/team/a\n  EXAMPLE.com/app: r.example.com/team/root:2\n", ".", "linux/amd64"},
	{"baseImageOverrides:\n  example.com/App/cmd/a: r.example.com/team/a\n", "./cmd/a", "linux/amd64"},
	{"baseImageOverrides:\n  example.com/App/cmd/a: 'A B'\n", "./cmd/a", "linux/amd64"},
	{"defaultPlatforms: [linux/arm64, linux/amd64]\n", ".", "linux/arm64"},
	{"builds: [\n", ".", "linux/amd64"},
	{"- a\n", ".", "linux/amd64"},
	{"defaultEnv: {A: 1}\n", ".", "linux/amd64"},
	{"a: 1\na: 2\n", ".", "linux/amd64"},
	{"\tdefaultEnv: []\n", ".", "linux/amd64"},
	{"builds: 5\n", ".", "linux/amd64"},
	{"builds:\n- 5\n", ".", "linux/amd64"},
	{"builds:\n- main: [a]\n", ".", "linux/amd64"},
	{"# nothing\n", ".", "linux/amd64"},
	{"defaultEnv:\ndefaultFlags: ~\nbuilds:\n", ".", "linux/amd64"},
}

type buildResult struct {
	buildCase
	Error      bool              `json:"error,omitempty"`
	ImportPath string            `json:"import_path,omitempty"`
	Base       string            `json:"base,omitempty"`
	Dir        string            `json:"dir,omitempty"`
	Args       []string          `json:"args,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	Platforms  []string          `json:"default_platforms,omitempty"`
}

func git(dir string, args ...string) {
	command := exec.Command("git", args...)
	command.Dir = dir
	when := "2023-11-14T22:13:20Z"
	command.Env = append(os.Environ(), "GIT_AUTHOR_DATE="+when, "GIT_COMMITTER_DATE="+when, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	check(command.Run())
}

// builds runs ko with a `go` that writes down how it was called.
func builds() {
	work, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(work)
	source, record := filepath.Join(work, "source"), filepath.Join(work, "record")
	check(os.Mkdir(record, 0o755))
	for path, text := range tree {
		path = filepath.Join(source, path)
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		check(os.WriteFile(path, []byte(text), 0o644))
	}
	git(source, "init", "-q", "-b", "main")
	git(source, "add", ".")
	git(source, "commit", "-q", "-m", "first")
	git(source, "tag", "v1.2.3")
	real, err := exec.LookPath("go")
	check(err)
	fake := filepath.Join(work, "go")
	script := "#!/bin/sh\nif [ \"$1\" = env ]; then exec " + real + " \"$@\"; fi\nenv -0 >" + record + "/env\nprintf '%s\\0' \"$@\" >" + record + "/args\npwd >" + record + "/pwd\n" +
		"while [ \"$1\" != -o ]; do shift; done\n: >\"$2\"\n"
	check(os.WriteFile(fake, []byte(script), 0o755))
	ambient := map[string]string{"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"), "KO_GO_PATH": fake, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
	os.Clearenv()
	for key, value := range ambient {
		check(os.Setenv(key, value))
	}
	for _, c := range buildCases {
		line(one(c, source, record, work, ambient))
	}
}

func one(c buildCase, source, record, work string, ambient map[string]string) buildResult {
	failed := buildResult{buildCase: c, Error: true}
	for _, file := range []string{"env", "args", "pwd"} {
		os.Remove(filepath.Join(record, file))
	}
	config := filepath.Join(work, "config")
	check(os.RemoveAll(config))
	check(os.Mkdir(config, 0o755))
	check(os.WriteFile(filepath.Join(config, ".ko.yaml"), []byte(c.Config), 0o644))
	check(os.Setenv("KO_CONFIG_PATH", config))
	check(os.Chdir(source))
	bo := &options.BuildOptions{Trimpath: true}
	if bo.LoadConfig() != nil {
		return failed
	}
	platform, err := v1.ParsePlatform(c.Platform)
	check(err)
	ctx := context.Background()
	bases := func(_ context.Context, _ string) (name.Reference, build.Result, error) {
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant})
		check(err)
		index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		ref, err := name.ParseReference("r.example.com/base")
		return ref, index, err
	}
	builder, err := build.NewGobuilds(ctx, bo.WorkingDirectory, bo.BuildConfigs, build.WithBaseImages(bases), build.WithDefaultEnv(bo.DefaultEnv),
		build.WithDefaultFlags(bo.DefaultFlags), build.WithDefaultLdflags(bo.DefaultLdflags), build.WithPlatforms(c.Platform), build.WithDisabledSBOM(),
		build.WithTrimpath(bo.Trimpath), build.WithConfig(bo.BuildConfigs), build.WithCreationTime(v1.Time{Time: time.Unix(1700000000, 0).UTC()}))
	check(err)
	path, err := builder.QualifyImport(c.Import)
	if err != nil {
		return failed
	}
	if builder.IsSupportedReference(path) != nil {
		return failed
	}
	if _, err := builder.Build(ctx, path); err != nil {
		return failed
	}
	result := buildResult{buildCase: c, ImportPath: strings.TrimPrefix(path, "ko://"), Env: map[string]string{}, Platforms: bo.DefaultPlatforms}
	// what ko looks up, in its own words: pkg/commands/config.go
	result.Base = bo.BaseImageOverrides[strings.ToLower(result.ImportPath)]
	if result.Base == "" {
		result.Base = bo.BaseImage
	}
	result.Args = recorded(record, "args", "\x00")
	for at := range result.Args {
		if at > 0 && result.Args[at-1] == "-o" {
			result.Args[at] = "OUT"
		}
	}
	pwd, err := os.ReadFile(filepath.Join(record, "pwd"))
	check(err)
	result.Dir, err = filepath.Rel(source, strings.TrimSpace(string(pwd)))
	check(err)
	for _, entry := range recorded(record, "env", "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		if known, there := ambient[key]; (there && known == value) || key == "PWD" || key == "_" || key == "KO_CONFIG_PATH" || key == "OLDPWD" || key == "SHLVL" {
			continue
		}
		result.Env[key] = value
	}
	return result
}

func recorded(record, file, separator string) []string {
	text, err := os.ReadFile(filepath.Join(record, file))
	check(err)
	return strings.Split(strings.TrimSuffix(string(text), separator), separator)
}
