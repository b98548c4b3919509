// The LLB oracle: what BuildKit's Go client makes of graphs described in JSON.
//
//	go run ./llb < cases.jsonl > llb.jsonl
//	go run ./llb definition < case.json | buildctl build
//
// Each line of the input is a description (language.go); the same line comes out with what Go made of it: the operations'
// bytes, their metadata, the source maps, and the hash of the text that `buildctl debug dump-llb` writes. A line that held
// an answer already gets a new one, so the committed table is its own input. Answers are written line by line: the
// property tests keep one process and ask it as they go. With `definition` one description comes out as buildctl takes it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

type answer struct {
	Error    string                    `json:"error,omitempty"`
	Ops      []string                  `json:"ops,omitempty"`
	Metadata map[string]*pb.OpMetadata `json:"metadata,omitempty"`
	Source   string                    `json:"source,omitempty"`
	Dump     string                    `json:"dump,omitempty"`
}

func main() {
	in := bufio.NewReader(os.Stdin)
	if len(os.Args) > 1 && os.Args[1] == "definition" {
		line, _ := in.ReadBytes('\n')
		def, err := read(line).marshal(context.Background())
		check(err)
		check(llb.WriteTo(def, os.Stdout))
		return
	}
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var all map[string]json.RawMessage
			check(json.Unmarshal(line, &all))
			made, err := json.Marshal(answerTo(line))
			check(err)
			name := all["name"]
			if name == nil {
				name = json.RawMessage(`""`)
			}
			fmt.Fprintf(out, `{"name":%s,"steps":%s`, name, compact(all["steps"]))
			if marshal, ok := all["marshal"]; ok {
				fmt.Fprintf(out, `,"marshal":%s`, compact(marshal))
			}
			fmt.Fprintf(out, ",\"want\":%s}\n", made)
			check(out.Flush())
		}
		if err != nil {
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compact(text json.RawMessage) string {
	var out bytes.Buffer
	check(json.Compact(&out, text))
	return out.String()
}

func answerTo(line []byte) (made answer) {
	defer func() {
		if why := recover(); why != nil {
			made = answer{Error: fmt.Sprint("panic: ", why)}
		}
	}()
	def, err := read(line).marshal(context.Background())
	if err != nil {
		return answer{Error: err.Error()}
	}
	made.Metadata = map[string]*pb.OpMetadata{}
	for digest, metadata := range def.Metadata {
		made.Metadata[string(digest)] = metadata.ToPB()
	}
	for _, op := range def.Def {
		made.Ops = append(made.Ops, base64.StdEncoding.EncodeToString(op))
	}
	if def.Source != nil {
		source, err := proto.MarshalOptions{Deterministic: true}.Marshal(def.Source)
		check(err)
		made.Source = base64.StdEncoding.EncodeToString(source)
	}
	made.Dump = dump(def)
	return made
}

func read(line []byte) (d description) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	check(decoder.Decode(&d))
	return d
}

func dump(def *llb.Definition) string {
	hash := sha256.New()
	encoder := json.NewEncoder(hash)
	for _, bytes := range def.Def {
		var op pb.Op
		check(op.Unmarshal(bytes))
		digest := digest.FromBytes(bytes)
		check(encoder.Encode(struct {
			Op         *pb.Op
			Digest     string
			OpMetadata *pb.OpMetadata
		}{&op, string(digest), def.Metadata[digest].ToPB()}))
	}
	return hex.EncodeToString(hash.Sum(nil))
}
