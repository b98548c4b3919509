package main

import (
	"os"

	"github.com/moby/buildkit/client/llb"
	digest "github.com/opencontainers/go-digest"
)

func (m *maker) sourceStep(s step) llb.State {
	c := m.constraints(s.C)
	switch s.Op {
	case "scratch":
		return llb.Scratch()
	case "image":
		return llb.Image(s.Ref, imageOptions(s, c)...)
	case "git":
		return llb.Git(s.URL, s.Fragment, gitOptions(s, c)...)
	case "http":
		return llb.HTTP(s.URL, httpOptions(s, c)...)
	case "local":
		return llb.Local(s.ID, localOptions(s, c)...)
	case "oci":
		options := []llb.OCILayoutOption{llb.OCIStore(s.Session, s.Store)}
		if s.Layers != 0 {
			options = append(options, llb.OCILayerLimit(s.Layers))
		}
		for _, o := range c {
			options = append(options, o)
		}
		return llb.OCILayout(s.Ref, options...)
	case "blob", "ociblob":
		options := []llb.ImageBlobOption{llb.Filename(s.Filename), llb.Chmod(os.FileMode(s.Chmod)), llb.Chown(s.UID, s.GID)}
		for _, o := range c {
			options = append(options, o)
		}
		if s.Op == "blob" {
			return llb.ImageBlob(s.Ref, options...)
		}
		return llb.OCILayoutBlob(s.Ref, append(options, llb.ImageBlobOCIStore(s.Session, s.Store))...)
	}
	var all llb.Constraints
	for _, o := range c {
		o.SetConstraintsOption(&all)
	}
	attrs := map[string]string{}
	for _, pair := range s.Attrs {
		attrs[pair[0]] = pair[1]
	}
	return llb.NewState(llb.NewSource(s.ID, attrs, all).Output())
}

func imageOptions(s step, c []llb.ConstraintsOpt) (out []llb.ImageOption) {
	for _, o := range c {
		out = append(out, o)
	}
	switch s.Mode {
	case "pull":
		out = append(out, llb.ResolveModeForcePull)
	case "local":
		out = append(out, llb.ResolveModePreferLocal)
	}
	if s.Record == "internal" {
		out = append(out, llb.MarkImageInternal)
	}
	if s.Layers != 0 {
		out = append(out, llb.WithLayerLimit(s.Layers))
	}
	if s.Checksum != "" {
		out = append(out, llb.WithImageChecksum(digest.Digest(s.Checksum)))
	}
	return out
}

func gitOptions(s step, c []llb.ConstraintsOpt) (out []llb.GitOption) {
	for _, o := range c {
		out = append(out, o)
	}
	if s.Ref != "" {
		out = append(out, llb.GitRef(s.Ref))
	}
	if s.Subdir != "" {
		out = append(out, llb.GitSubDir(s.Subdir))
	}
	if has(s.Flags, "keep_git_dir") {
		out = append(out, llb.KeepGitDir())
	}
	if s.Token != nil {
		out = append(out, llb.AuthTokenSecret(*s.Token))
	}
	if s.Header != nil {
		out = append(out, llb.AuthHeaderSecret(*s.Header))
	}
	for _, host := range s.Hosts {
		out = append(out, llb.KnownSSHHosts(host))
	}
	if s.Socket != "" {
		out = append(out, llb.MountSSHSock(s.Socket))
	}
	if s.Checksum != "" {
		out = append(out, llb.GitChecksum(s.Checksum))
	}
	if has(s.Flags, "skip_submodules") {
		out = append(out, llb.GitSkipSubmodules())
	}
	if s.MTime != "" {
		out = append(out, llb.GitMTime(s.MTime))
	}
	if has(s.Flags, "fetch_by_commit") {
		out = append(out, llb.GitFetchByCommit())
	}
	if s.Bundle != "" {
		out = append(out, llb.GitBundleURL(s.Bundle, llb.GitBundleOCIStore(s.Session, s.Store)))
	}
	if has(s.Flags, "checkout_bundle") {
		out = append(out, llb.GitCheckoutBundle())
	}
	return out
}

func httpOptions(s step, c []llb.ConstraintsOpt) (out []llb.HTTPOption) {
	for _, o := range c {
		out = append(out, o)
	}
	if s.Checksum != "" {
		out = append(out, llb.Checksum(digest.Digest(s.Checksum)))
	}
	out = append(out, llb.Filename(s.Filename), llb.Chmod(os.FileMode(s.Chmod)), llb.Chown(s.UID, s.GID))
	if s.Header != nil {
		out = append(out, llb.AuthHeaderSecret(*s.Header))
	}
	if len(s.Headers) > 0 {
		out = append(out, llb.Header(llb.HTTPHeader{Accept: s.Headers[0], UserAgent: s.Headers[1]}))
	}
	if len(s.Signed) > 0 {
		out = append(out, llb.VerifyPGPSignature(llb.HTTPSignatureInfo{
			PubKey: []byte(s.Signed[0]), Signature: []byte(s.Signed[1]),
		}))
	}
	return out
}

func localOptions(s step, c []llb.ConstraintsOpt) (out []llb.LocalOption) {
	for _, o := range c {
		out = append(out, o)
	}
	if s.Session != "" {
		out = append(out, llb.SessionID(s.Session))
	}
	out = append(out, llb.IncludePatterns(s.Include), llb.ExcludePatterns(s.Exclude), llb.FollowPaths(s.Follow),
		llb.SharedKeyHint(s.Hint))
	if s.Differ != "" {
		out = append(out, llb.Differ(llb.DiffType(s.Differ), has(s.Flags, "required")))
	}
	if has(s.Flags, "metadata_only") {
		out = append(out, llb.MetadataOnlyTransfer(s.Except))
	}
	return out
}
