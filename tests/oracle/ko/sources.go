package main

import (
	"go/build"
	"os"
	"path/filepath"
)

// Files of one directory each; what go/build makes of them.
type sourceCase struct {
	Platform string            `json:"platform"`
	CGO      bool              `json:"cgo"`
	Tags     []string          `json:"tags,omitempty"`
	Files    map[string]string `json:"files"`
}

type sourceResult struct {
	sourceCase
	// The package's name; empty where there is none to build.
	Name string `json:"name"`
	// Files of two packages, or a package clause that cannot be read.
	Error bool `json:"error,omitempty"`
}

const mainText = "package main\n"

func file(name, text string) map[string]string { return map[string]string{name: text} }

var sourceTexts = []string{
	mainText, "package lib\n", "", "package", "package main", "package main;import \"fmt\"\n", "// c\n\n/* d */ package /* e */ main // f\n", "/* package lib */\npackage main\n", "\ufeffpackage main\n",
	"//go:build linux\n\npackage main\n", "//go:build !linux\n\npackage main\n", "//go:build linux && amd64\n\npackage main\n", "//go:build linux && (arm64 || riscv64)\n\npackage main\n", "//go:build ignore\n\npackage main\n",
	"//go:build unix\n\npackage main\n", "//go:build !unix\n\npackage main\n", "//go:build cgo\n\npackage main\n", "//go:build !cgo\n\npackage main\n", "//go:build go1.1\n\npackage main\n", "//go:build go1.999\n\npackage main\n",
	"//go:build gc\n\npackage main\n", "//go:build gccgo\n\npackage main\n", "//go:build netgo\n\npackage main\n", "//go:build netgo || !netgo\n\npackage main\n", "//go:build android\n\npackage main\n", "//go:build windows\n\npackage main\n",
	"//go:build linux\npackage main\n", "//go:build !linux\npackage main\n", "// +build linux\n\npackage main\n", "// +build !linux\n\npackage main\n", "// +build !linux\npackage main\n", "// +build linux,!amd64 darwin\n\npackage main\n", "// +build ignore\n// +build linux\n\npackage main\n", "// +build\n\npackage main\n",
	"//go:build linux\n// +build !linux\n\npackage main\n", "//go:build !linux\n// +build linux\n\npackage main\n", "package main\n\n//go:build !linux\n", "/*\n//go:build !linux\n*/\n\npackage main\n", "/* c */ //go:build !linux\n\npackage main\n", "// c\n\n//go:build !linux\n\n// d\npackage main\n",
	"//go:build linux\n//go:build amd64\n\npackage main\n", "//go:build (linux\n\npackage main\n", "//go:build linux &&\n\npackage main\n", "//go:build !!linux\n\npackage main\n", "//go:build !(linux && amd64)\n\npackage main\n", "//go:build linux||darwin&&arm64\n\npackage main\n", "//go:build\tlinux\n\npackage main\n", "//go:buildlinux\n\npackage main\n", "//go:build \n\npackage main\n", " //go:build !linux\n\npackage main\n", "// go:build !linux\n\npackage main\n", "//go:build !linux\r\n\r\npackage main\r\n",
	"package main\nimport \"C\"\n", "package main\n\nimport (\n\t\"fmt\"\n\t\"C\"\n)\n", "package documentation\n", "package main_test\n", "package main\nfunc main() { syntax error\n", "package main\nimport fmt\n", "pakage main\n", "#!/bin/sh\npackage main\n", "package 1main\n", "package mäin\n", "package _\n", "package main\x00\n", "//go:build amd64.v1\n\npackage main\n", "//go:build goexperiment.x\n\npackage main\n", "//go:build linux&&\u00e9\n\npackage main\n", "//go:build race || msan || asan || purego\n\npackage main\n", "//go:build boringcrypto\n\npackage main\n", "/* unclosed\npackage main\n", "/**/package main\n", "//\npackage\n\n\nmain\n", "//go:build solaris || illumos\n\npackage main\n",
}

var sourceNames = []string{
	"main.go", "main_linux.go", "main_darwin.go", "main_amd64.go", "main_arm64.go", "main_linux_amd64.go", "main_linux_arm64.go", "main_amd64_linux.go", "main_windows_amd64.go", "linux.go", "amd64.go", "linux_amd64.go", "_linux.go", "a_linux_test.go", "main_test.go", "_main.go", ".main.go", "main_unix.go", "main_android.go", "main_cgo.go", "main.linux.go",
	"main_linux.x.go", "main.txt", "main.GO", "main_linuxx.go", "x_plan9_386.go", "x_foo_linux.go", "x_linux_foo.go", "x_wasip1_wasm.go", "x_arm.go", "x_illumos.go", "x_solaris.go", "x_zos_s390x.go", "x_loong64.go", "x_sparc64.go", "x_ios.go", "main_linux_amd64_test.go", "test.go", "x_nacl.go", "x_js.go", "x_riscv64.go", "x_mips64p32le.go", "x_hurd.go",
}

func sources() {
	platforms := [][2]string{{"linux", "amd64"}, {"linux", "arm64"}, {"windows", "amd64"}}
	for _, platform := range platforms {
		text := platform[0] + "/" + platform[1]
		for _, content := range sourceTexts {
			line(sourcesOf(platform, sourceCase{Platform: text, Files: file("a.go", content)}))
		}
		for _, name := range sourceNames {
			line(sourcesOf(platform, sourceCase{Platform: text, Files: file(name, mainText)}))
		}
	}
	linux := platforms[0]
	for _, c := range []sourceCase{
		{CGO: true, Files: file("a.go", "package main\nimport \"C\"\n")},
		{CGO: true, Files: file("a.go", "//go:build cgo\n\npackage main\n")},
		{Tags: []string{"netgo"}, Files: file("a.go", "//go:build netgo\n\npackage main\n")},
		{Tags: []string{"a", "b"}, Files: file("a.go", "//go:build a && b\n\npackage main\n")},
		{Files: map[string]string{"a.go": mainText, "b.go": "package lib\n"}},
		{Files: map[string]string{"a.go": "//go:build ignore\n\npackage main\n", "b.go": "package lib\n"}},
		{Files: map[string]string{"a.go": "package documentation\n", "b.go": mainText}},
		{Files: map[string]string{"a.go": mainText, "b_test.go": "package main_test\n", "c_windows.go": "package lib\n"}},
		{Files: map[string]string{"a_test.go": mainText}},
		{Files: map[string]string{"a.go": "package main\nimport \"C\"\n", "b.go": mainText}},
		{Files: map[string]string{"a.s": "x", "b.c": "y"}},
	} {
		c.Platform = "linux/amd64"
		line(sourcesOf(linux, c))
	}
}

func sourcesOf(platform [2]string, c sourceCase) sourceResult {
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	for name, text := range c.Files {
		check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	context := build.Default
	context.GOOS, context.GOARCH, context.CgoEnabled, context.BuildTags, context.ToolTags = platform[0], platform[1], c.CGO, c.Tags, nil
	if platform[1] == "amd64" {
		context.ToolTags = []string{"amd64.v1"}
	}
	found, err := context.ImportDir(dir, 0)
	result := sourceResult{sourceCase: c}
	if _, none := err.(*build.NoGoError); none {
		return result
	}
	if err != nil {
		result.Error = true
		return result
	}
	if len(found.GoFiles)+len(found.CgoFiles) > 0 {
		result.Name = found.Name
	}
	return result
}
