package main

// A description is a row of steps, each of which makes a state (or a chain of file actions, or a source map); the last one
// is marshalled. Steps are named by their number from 1; 0 is the step before, or scratch where a source may be left out.
// What is absent, empty, false or zero is not said. tests/it/llb/language.rs reads the same.
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
