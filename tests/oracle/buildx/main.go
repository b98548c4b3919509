// What buildx makes of the values of its flags.
//
//	go run . > flags.json
//
// src/buildkit/flags is compared with the committed table in tests/it/buildkit/flags.rs. An error is a fact only: its text
// is buildx's own. Maps are written in the order of their keys.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/buildx/util/buildflags"
	"github.com/docker/buildx/util/platformutil"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
)

var cases = map[string][]string{
	"output": {
		"out", "./out", "-", "a=b", "type=local", "type=local,dest=out", "type=tar", "type=tar,dest=-", "type=oci,tar=false,dest=d",
		"type=image,name=r.example/a,push=true", `type=image,"name=r.example/a,r.example/b",push=true`, "TYPE=registry,Name=x", " type =image",
		"type=docker,dest=", "dest=x", "type=", "type=image,push", "", "a,b", `"a`, `type=image,na"me=x`, "type=image,annotation.a=b=c", "type=cacheonly",
		"type=local,dest=a,dest=b", "out dir", "type=image,compression=zstd,compression-level=3,force-compression=true,rewrite-timestamp=true",
	},
	"cache": {
		"r.example/c", "r.example/a,r.example/b", "type=registry,ref=r.example/c,mode=max", "type=inline", "type=local,dest=/c,tag=x", "TYPE=gha,Scope=x",
		"type=s3,region=eu,bucket=b", "ref=r.example/c", "type=registry,ref", "", "type=azblob,account_url=https://x", `type=registry,"ref=a,b"`, "type=",
		"user/app:cache", "type=local,src=a=b", ",", "r.example/a,",
	},
	"attest": {
		"type=sbom", "type=provenance,mode=max", "type=provenance,disabled=true", "type=sbom,disabled=0", "type=sbom,disabled=maybe", "mode=max", "type=sbom,generator=r.example/s:1",
		`type=provenance,"builder-id=a,b"`, "type=sbom,x", "", "Type=sbom,Mode=X", "type=", " type=sbom",
	},
	"provenance": {"true", "false", "1", "0", "t", "mode=max", "mode=min,inline-only=true", "max", "mode=max,version=v1,builder-id=https://ci.example", "TRUE", "disabled=true", "True", "yes"},
	"sbom":       {"true", "false", "generator=r.example/s", "r.example/s", "F"},
	"annotation": {
		"a=b", "a=b=c", "a", "index:a=b", "manifest:a=b", "index,manifest:a=b", "manifest[linux/amd64]:a=b", "manifest-descriptor[linux/arm/v7]:a=b", "index-descriptor:a=b",
		"index[linux/amd64]:a=b", "image:a=b", "manifest[:a=b", "manifest[]:a=b", ":a=b", "manifest:a:b=c", "Index:a=b", "manifest[linux/arm64/v8]:org.x=y", "a:b=c", "=b", "manifest[bogus]:a=b",
	},
	"context": {
		"a=b", "alpine=docker-image://alpine:3.20", "alpine:latest=x", "docker.io/library/alpine=x", "docker.io/library/alpine:3=x", "index.docker.io/library/a=x", "r.example/a/b=x",
		"r.example:5000/a:latest=x", "localhost/a=x", "Alpine=x", "a", "=x", "a_b=x", "a__b=x", "a___b=x", "a--b=x", "-a=x", "a.=x", "a..b=x", "library/a=x", "a/b=x", "a=", "a=b=c",
		"a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855=x", "a:b c=x", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855=x", "HOST/a=x", "a:.b=x",
	},
	"platform": {
		"linux/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm", "linux/arm/v7", "linux/arm/7", "linux/arm/v6", "linux/armhf", "linux/armel", "linux/x86_64", "linux/aarch64", "arm64", "amd64", "arm", "aarch64",
		"linux", "windows", "LINUX/AMD64", "linux/amd64,linux/arm64", "windows(10.0.17763)/amd64", "linux/amd64/v1", "linux/amd64/v3", "linux/i386", "macos/arm64", "bogus", "linux/", "/amd64", "linux/amd64/v1/x",
		"linux/*", "", "linux/riscv64", "linux/arm/5", "linux/arm64/9", "s390x", "linux/x y",
	},
	"ulimit": {"nofile=1024", "nofile=1024:2048", "nofile=-1", "nofile=1:-1", "nofile=-1:1", "nofile=2:1", "nofile", "bogus=1", "nofile=", "nofile=a", "nofile=1:2:3", "core=0:0", "NOFILE=1", "stack=+5"},
	"size": {"64m", "1g", "1.5g", "512", "1k", "1kb", "1KiB", "1 m", "1b", "0", "-1", "m", "", "1x", "1mbb", "1 MB", "1tb", "2p", "1e3", ".5k", "1.k", " 1", "1..2"},
	"secret": {
		"id=a", "id=a,src=f", "id=a,source=f", "id=a,env=E", "id=a,type=env,src=E", "type=env,id=a", "id=a,type=file,src=f", "id=a,type=x", "id=a,b=c", "id", "", `id=a,"src=f,g"`, "ID=a,SRC=f",
	},
	"ssh":   {"default", "default=/a", "id=/a,/b", "id=", "a=b=c"},
	"allow": {"network.host", "security.insecure", "device", "device=vendor/x=all", "device=a,alias=b", "device=a,x=b", "device=a,b", "network.none", "network.host=1", "buildx.local.delete", "buildx.local.delete=1", "device=", "Network.Host"},
	"call":  {"check", "lint", "outline", "targets", "build", "check,format=json", "format=json,check", "check,ignorestatus=true", "check,ignorestatus=x", "check,lint", "check,x=y", "subrequests.describe", "other", "format=json"},
}

func pairs(m map[string]string) [][2]string {
	out := [][2]string{}
	for k, v := range m {
		out = append(out, [2]string{k, v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	return out
}

func attests(in string) (any, error) {
	parsed, err := buildflags.ParseAttests([]string{in})
	if err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for k, v := range parsed.ToMap() {
		if v != nil {
			attrs["attest:"+k] = *v
		}
	}
	return pairs(attrs), nil
}

func ask(flag, in string) (any, error) {
	switch flag {
	case "output":
		var e buildflags.ExportEntry
		if err := e.UnmarshalText([]byte(in)); err != nil {
			return nil, err
		}
		return []any{e.Type, e.Destination, pairs(e.Attrs)}, nil
	case "cache":
		entries, err := buildflags.ParseCacheEntry([]string{in})
		out := []any{}
		for _, e := range entries {
			out = append(out, []any{e.Type, pairs(e.Attrs)})
		}
		return out, err
	case "attest":
		return attests(in)
	case "provenance", "sbom":
		return attests(buildflags.CanonicalizeAttest(flag, in))
	case "annotation":
		parsed, err := buildflags.ParseAnnotations([]string{in})
		if err != nil {
			return nil, err
		}
		attrs := map[string]string{}
		for k, v := range parsed {
			attrs[k.String()] = v
		}
		return pairs(attrs), nil
	case "context":
		parsed, err := buildflags.ParseContextNames([]string{in})
		return pairs(parsed), err
	case "platform":
		parsed, err := platformutil.Parse([]string{in})
		out := []string{}
		for _, p := range parsed {
			out = append(out, platforms.FormatAll(platforms.Normalize(p)))
		}
		return out, err
	case "ulimit":
		u, err := units.ParseUlimit(in)
		if err != nil {
			return nil, err
		}
		return u.String(), nil
	case "size":
		var m opts.MemBytes
		err := m.Set(in)
		return m.Value(), err
	case "secret":
		var s buildflags.Secret
		err := s.UnmarshalText([]byte(in))
		return []string{s.ID, s.FilePath, s.Env}, err
	case "ssh":
		var s buildflags.SSH
		err := s.UnmarshalText([]byte(in))
		return []any{s.ID, append([]string{}, s.Paths...)}, err
	case "allow":
		out, deletes, err := buildflags.ParseEntitlements([]string{in})
		return []any{out, deletes}, err
	case "call":
		f, err := buildflags.ParseCallFunc(in)
		if err != nil || f == nil {
			return nil, err
		}
		return []any{f.Name, f.Format, f.IgnoreStatus}, nil
	}
	return nil, fmt.Errorf("no such flag")
}

func main() {
	flags := []string{}
	for flag := range cases {
		flags = append(flags, flag)
	}
	sort.Strings(flags)
	rows := []string{}
	for _, flag := range flags {
		for _, in := range cases[flag] {
			row := []any{flag, in, nil, true}
			if out, err := ask(flag, in); err == nil {
				row[2], row[3] = out, false
			}
			line, err := json.Marshal(row)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			rows = append(rows, string(line))
		}
	}
	fmt.Printf("[\n%s\n]\n", strings.Join(rows, ",\n"))
}
