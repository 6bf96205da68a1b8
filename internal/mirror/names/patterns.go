package names

// Pattern is one of the patterns by which a filter chooses names.
type Pattern struct {
	Text     string // as it was written
	Name     string // the name, or what names begin with; "" of a regular expression
	IsPrefix bool
	IsRegexp bool
}

// Included lists the patterns of names that are chosen, in the order in which they were written. What is left out is not looked at.
func (f *Filter) Included() []Pattern {
	if f == nil {
		return nil
	}
	all := make([]Pattern, len(f.include))
	for i := range f.include {
		p := &f.include[i]
		all[i] = Pattern{Text: p.text, Name: p.name, IsPrefix: p.kind == prefix, IsRegexp: p.kind == search}
	}
	return all
}
