package main

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/llbbuild"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a step made.
type result struct {
	state  llb.State
	exec   *llb.ExecState
	from   map[string]llb.State
	chain  llb.CopyInput
	source *llb.SourceMap
}

type maker struct {
	ctx     context.Context
	marshal []llb.ConstraintsOpt
	made    []result
}

func has(flags []string, flag string) bool {
	for _, f := range flags {
		if f == flag {
			return true
		}
	}
	return false
}

func (d description) marshal(ctx context.Context) (*llb.Definition, error) {
	m := &maker{ctx: ctx}
	m.marshal = m.constraints(d.Marshal)
	for _, s := range d.Steps {
		made, err := m.step(s)
		if err != nil {
			return nil, err
		}
		m.made = append(m.made, made)
	}
	return m.made[len(m.made)-1].state.Marshal(ctx, m.marshal...)
}

func (m *maker) result(number int) result {
	if number == 0 {
		number = len(m.made)
	}
	return m.made[number-1]
}

// The state of a step, or scratch for 0.
func (m *maker) source(number int) llb.State {
	if number == 0 {
		return llb.Scratch()
	}
	return m.made[number-1].state
}

func (m *maker) constraints(c *constraints) (out []llb.ConstraintsOpt) {
	if c == nil {
		return nil
	}
	if p := c.Platform; p != nil {
		out = append(out, llb.Platform(p.spec()))
	}
	if len(c.Require) > 0 {
		out = append(out, llb.Require(c.Require...))
	}
	if has(c.Flags, "ignore_cache") {
		out = append(out, llb.IgnoreCache)
	}
	for _, pair := range c.Desc {
		out = append(out, llb.WithDescription(map[string]string{pair[0]: pair[1]}))
	}
	if c.Name != "" {
		out = append(out, llb.WithCustomName(c.Name))
	}
	switch c.Export {
	case "on":
		out = append(out, llb.WithExportCache())
	case "off":
		out = append(out, llb.WithoutExportCache())
	case "default":
		out = append(out, llb.WithExportCache(), llb.WithoutDefaultExportCache())
	}
	if c.Unique != "" {
		out = append(out, llb.LocalUniqueID(c.Unique))
	}
	if len(c.Group) > 0 {
		out = append(out, llb.ProgressGroup(c.Group[0], c.Group[1], c.Group[2] == "weak"))
	}
	if l := c.Limits; len(l) > 0 {
		out = append(out, llb.WithLinuxResources(llb.LinuxResources{
			Memory: l[0], MemorySwap: l[1], CPUShares: uint64(l[2]), CPUPeriod: uint64(l[3]), CPUQuota: l[4],
			CpusetCpus: c.Cpus[0], CpusetMems: c.Cpus[1],
		}))
	}
	for _, loc := range c.Loc {
		var ranges []*pb.Range
		for _, r := range loc.Ranges {
			ranges = append(ranges, &pb.Range{
				Start: &pb.Position{Line: r[0], Character: r[1]}, End: &pb.Position{Line: r[2], Character: r[3]},
			})
		}
		out = append(out, m.result(loc.Map).source.Location(ranges))
	}
	if c.Caps != "" {
		var caps []*apicaps.PBCap
		for _, cap := range pb.Caps.All() {
			if c.Caps == "new" || cap.ID != string(pb.CapExecMetaSetsDefaultPath) {
				caps = append(caps, cap)
			}
		}
		out = append(out, llb.WithCaps(pb.Caps.CapSet(caps)))
	}
	return out
}

func (p *platform) spec() ocispecs.Platform {
	return ocispecs.Platform{
		OS: p.OS, Architecture: p.Arch, Variant: p.Variant, OSVersion: p.Version, OSFeatures: p.Features,
	}
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	check(err)
	return n
}

func (m *maker) change(c []string) llb.StateOption {
	switch c[0] {
	case "env":
		return llb.AddEnv(c[1], c[2])
	case "dir":
		return llb.Dir(c[1])
	case "user":
		return llb.User(c[1])
	case "hostname":
		return llb.Hostname(c[1])
	case "host":
		return func(s llb.State) llb.State { return s.AddExtraHost(c[1], net.ParseIP(c[2])) }
	case "ulimit":
		return func(s llb.State) llb.State {
			return s.AddUlimit(llb.UlimitName(c[1]), number(c[2]), number(c[3]))
		}
	case "cgroup":
		return func(s llb.State) llb.State { return s.WithCgroupParent(c[1]) }
	case "network":
		return llb.Network(pb.NetMode(pb.NetMode_value[strings.ToUpper(c[1])]))
	case "security":
		return llb.Security(pb.SecurityMode(pb.SecurityMode_value[strings.ToUpper(c[1])]))
	case "platform":
		return func(s llb.State) llb.State {
			return s.Platform(ocispecs.Platform{OS: c[1], Architecture: c[2], Variant: c[3]})
		}
	case "reset":
		return llb.Reset(m.source(int(number(c[1]))))
	}
	panic("unknown change " + c[0])
}

func (m *maker) step(s step) (r result, err error) {
	switch s.Op {
	case "scratch", "image", "git", "http", "local", "oci", "blob", "ociblob", "source":
		r.state = m.sourceStep(s)
	case "set":
		r.state = m.result(s.On).state
		for _, c := range s.Set {
			r.state = m.change(c)(r.state)
		}
	case "config":
		r.state, err = m.result(s.On).state.WithImageConfig([]byte(s.Config))
	case "run":
		r = m.run(s)
	case "mount":
		on := m.result(s.On)
		r.state = on.from[s.Target].WithOutput(on.exec.GetMount(s.Target).Output())
	case "file":
		on := m.result(s.On).state
		r.state = on.File(m.chain(s.Actions), m.constraints(s.C)...)
	case "chain":
		r.chain = m.chain(s.Actions).WithState(m.result(s.On).state)
	case "merge":
		var states []llb.State
		for _, n := range s.In {
			states = append(states, m.source(n))
		}
		r.state = llb.Merge(states, m.constraints(s.C)...)
	case "diff":
		r.state = llb.Diff(m.source(s.In[0]), m.source(s.In[1]), m.constraints(s.C)...)
	case "build":
		var options []llbbuild.BuildOption
		if s.Filename != "" {
			options = append(options, llbbuild.WithFilename(s.Filename))
		}
		for _, c := range m.constraints(s.C) {
			options = append(options, llbbuild.WithConstraints(c))
		}
		r.state = m.result(s.On).state.With(llbbuild.Build(options...))
	case "passthrough":
		var inputs []llb.PassthroughInput
		for i, n := range s.In {
			inputs = append(inputs, llb.PassthroughInput{State: m.source(n), Output: s.Out[i]})
		}
		op := llb.NewPassthroughOp(s.ID, inputs, m.constraints(s.C)...)
		r.state = llb.NewState(op.OutputAt(s.Layers))
	case "requires":
		var states []llb.State
		for _, n := range s.In {
			states = append(states, m.source(n))
		}
		r.state = m.result(s.On).state.Requires(s.ID, states...)
	case "import":
		var def *llb.Definition
		var op *llb.DefinitionOp
		if def, err = m.result(s.On).state.Marshal(m.ctx, m.marshal...); err != nil {
			return r, err
		}
		if len(def.Def) == 0 {
			// ours; Go's fails once it is marshalled
			r.state = llb.Scratch()
			return r, nil
		}
		if op, err = llb.NewDefinitionOp(def.ToPB()); err != nil {
			return r, err
		}
		r.state = llb.NewState(op)
	case "map":
		var of *llb.State
		if s.On != 0 {
			state := m.source(s.On)
			of = &state
		}
		r.source = llb.NewSourceMap(of, s.Filename, s.Lang, []byte(s.Data))
	default:
		panic("unknown step " + s.Op)
	}
	return r, err
}
