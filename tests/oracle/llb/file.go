package main

import (
	"os"
	"time"

	"github.com/moby/buildkit/client/llb"
)

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
