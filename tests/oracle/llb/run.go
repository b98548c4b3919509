package main

import (
	"github.com/moby/buildkit/client/llb"
)

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
