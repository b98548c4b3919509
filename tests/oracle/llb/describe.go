package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/llbbuild"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A description is a row of steps, each of which makes a state (or a chain of file actions, or a source map); the last one
// is marshalled. Steps are named by their number from 1; 0 is the step before, or scratch where a source may be left out.
// What is absent, empty, false or zero is not said. tests/it/llb/describe.rs reads the same.
type description struct {
	Name    string       `json:"name"`
	Steps   []step       `json:"steps"`
	Marshal *constraints `json:"marshal"`
	Want    any          `json:"want"`
}

type step struct {
	Op       string       `json:"op"`
	On       int          `json:"on"`
	In       []int        `json:"in"`
	Out      []bool       `json:"out"`
	C        *constraints `json:"c"`
	Set      [][]string   `json:"set"`
	Actions  []action     `json:"actions"`
	ID       string       `json:"id"`
	Attrs    [][2]string  `json:"attrs"`
	Ref      string       `json:"ref"`
	URL      string       `json:"url"`
	Fragment string       `json:"fragment"`
	Mode     string       `json:"mode"`
	Record   string       `json:"record"`
	Layers   int          `json:"layers"`
	Checksum string       `json:"checksum"`
	Subdir   string       `json:"subdir"`
	Flags    []string     `json:"flags"`
	Token    *string      `json:"token"`
	Header   *string      `json:"header"`
	Hosts    []string     `json:"hosts"`
	Socket   string       `json:"socket"`
	MTime    string       `json:"mtime"`
	Bundle   string       `json:"bundle"`
	Session  string       `json:"session"`
	Store    string       `json:"store"`
	Filename string       `json:"filename"`
	Chmod    uint32       `json:"chmod"`
	UID      int          `json:"uid"`
	GID      int          `json:"gid"`
	Headers  []string     `json:"headers"`
	Signed   []string     `json:"signed"`
	Include  []string     `json:"include"`
	Exclude  []string     `json:"exclude"`
	Follow   []string     `json:"follow"`
	Hint     string       `json:"hint"`
	Differ   string       `json:"differ"`
	Except   []string     `json:"except"`
	Config   string       `json:"config"`
	Args     []string     `json:"args"`
	Shell    string       `json:"shell"`
	Mounts   []mount      `json:"mounts"`
	Secrets  []secret     `json:"secrets"`
	SSH      []secret     `json:"ssh"`
	Devices  [][]string   `json:"devices"`
	Codes    []int        `json:"codes"`
	Proxy    []string     `json:"proxy"`
	Target   string       `json:"target"`
	Lang     string       `json:"lang"`
	Data     string       `json:"data"`
}

type constraints struct {
	Platform *platform   `json:"platform"`
	Require  []string    `json:"require"`
	Flags    []string    `json:"flags"`
	Desc     [][2]string `json:"desc"`
	Name     string      `json:"name"`
	Export   string      `json:"export"`
	Unique   string      `json:"unique"`
	Group    []string    `json:"group"`
	Limits   []int64     `json:"limits"`
	Cpus     []string    `json:"cpus"`
	Loc      []location  `json:"loc"`
	Caps     string      `json:"caps"`
}

type platform struct {
	OS       string   `json:"os"`
	Arch     string   `json:"arch"`
	Variant  string   `json:"variant"`
	Version  string   `json:"version"`
	Features []string `json:"features"`
}

type location struct {
	Map    int        `json:"map"`
	Ranges [][4]int32 `json:"ranges"`
}

type mount struct {
	Kind    string   `json:"kind"`
	Target  string   `json:"target"`
	From    int      `json:"from"`
	Path    string   `json:"path"`
	Flags   []string `json:"flags"`
	ID      string   `json:"id"`
	Sharing string   `json:"sharing"`
	Size    int64    `json:"size"`
	Content string   `json:"content"`
}

type secret struct {
	ID     string   `json:"id"`
	Target string   `json:"target"`
	Env    string   `json:"env"`
	UID    int      `json:"uid"`
	GID    int      `json:"gid"`
	Mode   int      `json:"mode"`
	Flags  []string `json:"flags"`
}

type action struct {
	Kind     string   `json:"kind"`
	From     int      `json:"from"`
	Path     string   `json:"path"`
	To       string   `json:"to"`
	Mode     uint32   `json:"mode"`
	ModeText string   `json:"mode_text"`
	Data     string   `json:"data"`
	Owner    string   `json:"owner"`
	IDs      []int    `json:"ids"`
	Created  string   `json:"created"`
	Flags    []string `json:"flags"`
	Include  []string `json:"include"`
	Exclude  []string `json:"exclude"`
	Required []string `json:"required"`
}

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

func (m *maker) run(s step) (r result) {
	var options []llb.RunOption
	// first, as a reset takes back what was said before it, words too
	for _, c := range s.Set {
		options = append(options, m.change(c))
	}
	if len(s.Args) > 0 {
		options = append(options, llb.Args(s.Args))
	}
	if s.Shell != "" {
		options = append(options, llb.Shlex(s.Shell))
	}
	r.from = map[string]llb.State{}
	for _, mnt := range s.Mounts {
		from := m.source(mnt.From)
		r.from[mnt.Target] = from
		options = append(options, llb.AddMount(mnt.Target, from, mnt.options()...))
	}
	for _, sec := range s.Secrets {
		options = append(options, sec.secret())
	}
	for _, sec := range s.SSH {
		options = append(options, sec.ssh())
	}
	for _, device := range s.Devices {
		o := []llb.CDIDeviceOption{llb.CDIDeviceName(device[0])}
		if has(device[1:], "optional") {
			o = append(o, llb.CDIDeviceOptional)
		}
		options = append(options, llb.AddCDIDevice(o...))
	}
	if len(s.Codes) > 0 {
		options = append(options, llb.ValidExitCodes(s.Codes...))
	}
	if has(s.Flags, "readonly_root") {
		options = append(options, llb.ReadonlyRootFS())
	}
	if p := s.Proxy; len(p) > 0 {
		options = append(options, llb.WithProxy(llb.ProxyEnv{
			HTTPProxy: p[0], HTTPSProxy: p[1], FTPProxy: p[2], NoProxy: p[3], AllProxy: p[4],
		}))
	}
	for _, c := range m.constraints(s.C) {
		options = append(options, c)
	}
	exec := m.result(s.On).state.Run(options...)
	r.exec, r.state = &exec, exec.Root()
	return r
}

func (mnt mount) options() (out []llb.MountOption) {
	switch mnt.Kind {
	case "cache":
		sharing := map[string]llb.CacheMountSharingMode{
			"": llb.CacheMountShared, "private": llb.CacheMountPrivate, "locked": llb.CacheMountLocked,
		}
		out = append(out, llb.AsPersistentCacheDir(mnt.ID, sharing[mnt.Sharing]))
	case "tmpfs":
		out = append(out, llb.Tmpfs(llb.TmpfsSize(mnt.Size)))
	}
	if mnt.Path != "" {
		out = append(out, llb.SourcePath(mnt.Path))
	}
	if has(mnt.Flags, "readonly") {
		out = append(out, llb.Readonly)
	}
	if has(mnt.Flags, "no_output") {
		out = append(out, llb.ForceNoOutput)
	}
	switch mnt.Content {
	case "on":
		out = append(out, llb.ContentCache(llb.MountContentCacheOn))
	case "off":
		out = append(out, llb.ContentCache(llb.MountContentCacheOff))
	}
	return out
}

func (s secret) secret() llb.RunOption {
	var options []llb.SecretOption
	if s.Env != "" {
		options = append(options, llb.SecretAsEnvName(s.Env))
	}
	if s.Mode != 0 {
		options = append(options, llb.SecretFileOpt(s.UID, s.GID, s.Mode))
	}
	if has(s.Flags, "optional") {
		options = append(options, llb.SecretOptional)
	}
	var target *string
	if s.Target != "" {
		target = &s.Target
	}
	return llb.AddSecretWithDest(s.ID, target, options...)
}

func (s secret) ssh() llb.RunOption {
	options := []llb.SSHOption{llb.SSHID(s.ID)}
	if s.Mode != 0 {
		options = append(options, llb.SSHSocketOpt(s.Target, s.UID, s.GID, s.Mode))
	} else if s.Target != "" {
		options = append(options, llb.SSHSocketTarget(s.Target))
	}
	if has(s.Flags, "optional") {
		options = append(options, llb.SSHOptional)
	}
	return llb.AddSSHSocket(options...)
}

func (m *maker) chain(actions []action) (chain *llb.FileAction) {
	for _, a := range actions {
		chain = m.action(chain, a)
	}
	return chain
}

func (m *maker) action(chain *llb.FileAction, a action) *llb.FileAction {
	var owner llb.ChownOption
	if a.Owner != "" {
		owner = llb.WithUser(a.Owner)
	} else if len(a.IDs) > 0 {
		owner = llb.WithUIDGID(a.IDs[0], a.IDs[1])
	}
	var created *llb.CreatedTime
	if a.Created != "" {
		t := llb.WithCreatedTime(time.Unix(0, number(a.Created)))
		created = &t
	}
	switch a.Kind {
	case "mkdir":
		var o []llb.MkdirOption
		if owner != nil {
			o = append(o, owner)
		}
		if created != nil {
			o = append(o, created)
		}
		if has(a.Flags, "parents") {
			o = append(o, llb.WithParents(true))
		}
		return chain.Mkdir(a.Path, os.FileMode(a.Mode), o...)
	case "mkfile":
		var o []llb.MkfileOption
		if owner != nil {
			o = append(o, owner)
		}
		if created != nil {
			o = append(o, created)
		}
		return chain.Mkfile(a.Path, os.FileMode(a.Mode), []byte(a.Data), o...)
	case "symlink":
		var o []llb.SymlinkOption
		if owner != nil {
			o = append(o, owner)
		}
		if created != nil {
			o = append(o, created)
		}
		return chain.Symlink(a.Path, a.To, o...)
	case "rm":
		return chain.Rm(a.Path, llb.WithAllowNotFound(has(a.Flags, "allow_not_found")),
			llb.WithAllowWildcard(has(a.Flags, "wildcard")))
	case "copy":
		return m.copy(chain, a, owner, created)
	}
	panic("unknown action " + a.Kind)
}

func (m *maker) copy(chain *llb.FileAction, a action, owner llb.ChownOption, created *llb.CreatedTime) *llb.FileAction {
	info := &llb.CopyInfo{
		FollowSymlinks:                 has(a.Flags, "follow_symlinks"),
		CopyDirContentsOnly:            has(a.Flags, "contents_only"),
		AttemptUnpack:                  has(a.Flags, "unpack"),
		CreateDestPath:                 has(a.Flags, "create_target_path"),
		AllowWildcard:                  has(a.Flags, "wildcard"),
		AllowEmptyWildcard:             has(a.Flags, "empty_wildcard"),
		AlwaysReplaceExistingDestPaths: has(a.Flags, "replace_existing"),
		IncludePatterns:                a.Include,
		ExcludePatterns:                a.Exclude,
		RequiredPaths:                  a.Required,
	}
	o := []llb.CopyOption{info}
	if owner != nil {
		o = append(o, owner)
	}
	if created != nil {
		o = append(o, created)
	}
	if a.ModeText != "" {
		o = append(o, llb.ChmodOpt{ModeStr: a.ModeText})
	} else if a.Mode != 0 {
		o = append(o, llb.ChmodOpt{Mode: os.FileMode(a.Mode)})
	}
	from := m.result(a.From)
	if from.chain != nil {
		return chain.Copy(from.chain, a.Path, a.To, o...)
	}
	return chain.Copy(from.state, a.Path, a.To, o...)
}
