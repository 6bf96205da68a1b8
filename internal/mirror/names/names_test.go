package names

import (
	"slices"
	"strings"
	"testing"
)

// TestFilter proves which names patterns choose: by themselves, by a prefix, by a regular expression, and without the excluded ones.
func TestFilter(t *testing.T) {
	for _, c := range []struct {
		include, exclude string
		has, hasNot      []string
	}{
		{"orders", "", []string{"orders"}, []string{"orders-eu", "my-orders", ""}},
		{"orders-*", "", []string{"orders-", "orders-eu"}, []string{"orders", "my-orders-eu"}},
		{"*", "", []string{"a", "", "console group 7"}, nil},
		{"re:^web-", "", []string{"web-clicks"}, []string{"my-web-clicks", "web"}},
		{"re:web", "", []string{"my-web-clicks"}, []string{"we-b"}},
		{"re:^a{1,2}$,b", "", []string{"a", "aa", "b"}, []string{"aaa", "2}$", "re:^a{1"}},
		{`re:^[a,(]$,x`, "", []string{"a", "(", ",", "x"}, []string{"b"}},
		{`re:^\(,re:b$`, "", []string{"(a", "ab"}, []string{"a"}},
		{`re:^[],]$,x`, "", []string{"]", ",", "x"}, []string{"a"}},
		{`re:^[^],]$,x`, "", []string{"a", "x"}, []string{"]", ","}},
		{" a , b* ,, ", "", []string{"a", "b", "bc"}, []string{"", " ", "c"}},
		{"orders-*,web", "orders-test*,re:-tmp$", []string{"orders-eu", "web"}, []string{"orders-test", "orders-test-1", "orders-x-tmp"}},
		{"a(b,c)", "", []string{"a(b", "c)"}, []string{"a(b,c)"}}, // brackets are special in a regular expression only
		{"", "", nil, []string{"a", ""}},
		{"*", "*", nil, []string{"a"}},
	} {
		f, err := ParseFilter(c.include, c.exclude)
		if err != nil {
			t.Errorf("%q, %q: %v", c.include, c.exclude, err)
			continue
		}
		for _, name := range c.has {
			if !f.Has(name) {
				t.Errorf("%q without %q does not choose %q", c.include, c.exclude, name)
			}
		}
		for _, name := range c.hasNot {
			if f.Has(name) {
				t.Errorf("%q without %q chooses %q", c.include, c.exclude, name)
			}
		}
	}
	if (*Filter)(nil).Has("a") || (*Filter)(nil).Names() != nil {
		t.Error("a filter that is nil chooses names")
	}
}

// TestNames proves which names a filter chooses by themselves: not those that it leaves out again.
func TestNames(t *testing.T) {
	f, err := ParseFilter("b,a-*,re:c,a,d", "d")
	if err != nil || !slices.Equal(f.Names(), []string{"b", "a"}) {
		t.Fatal(f.Names(), err)
	}
	if !f.HasLiterally("b") || f.HasLiterally("a-1") || f.HasLiterally("c") || f.HasLiterally("d") {
		t.Error("names are chosen by themselves that are not, or the other way round")
	}
}

// TestPatternsThatAreRefused proves that a pattern is refused with a sentence that shows it, and not taken for another one.
func TestPatternsThatAreRefused(t *testing.T) {
	for list, want := range map[string]string{
		"a*b":                          `"a*b"`,
		"**":                           `"**"`,
		"re:(":                         `"re:("`,
		"re:a{2,1}":                    `"re:a{2,1}"`,
		strings.Repeat("a", 1001):      "1001 bytes",
		strings.Repeat("a,", 10_001):   "more than 10000",
		"re:(((a{1000}){1000}){1000})": "re:",
		"re:^a$,re:[":                  `"re:["`,
	} {
		for _, lists := range [][2]string{{list, ""}, {"*", list}} {
			if _, err := ParseFilter(lists[0], lists[1]); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.40q: %v", list, err)
			}
		}
	}
}

// TestMapping proves the names that topics have here, and that a rename is instead of the prefix.
func TestMapping(t *testing.T) {
	m, err := ParseMapping("eu.", "orders=orders-of-europe, web=web")
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{"orders": "orders-of-europe", "web": "web", "clicks": "eu.clicks", "": "eu."} {
		if got := m.Here(topic); got != want {
			t.Errorf("%q is %q here, want %q", topic, got, want)
		}
	}
	if !m.IsRenamed("web") || m.IsRenamed("clicks") || m.Prefix() != "eu." {
		t.Error("what is renamed, or the prefix, is wrong")
	}
	if m = nil; m.Here("a") != "a" || m.Prefix() != "" || m.IsRenamed("a") {
		t.Error("a mapping that is nil changes a name")
	}
	for _, c := range []struct{ prefix, renames, want string }{
		{"e/u", "", `"e/u"`},
		{"", "a", "source=here"},
		{"", "a=", "needs a name"},
		{"", "a=..", `".."`},
		{"", "a=b c", `"b c"`},
		{"", "a=b,a=c", `to "b" and to "c"`},
		{"", "a=x,b=x", `both renamed to "x"`},
		{"", "a=" + strings.Repeat("x", 250), "250 characters"},
	} {
		if _, err := ParseMapping(c.prefix, c.renames); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: %v", c.prefix, c.renames, err)
		}
	}
	if _, err := ParseMapping("", "a=b,a=b"); err != nil {
		t.Errorf("the same rename twice: %v", err)
	}
}

// FuzzFilter proves that no list harms the parser, and that a name that has no special characters is chosen by itself.
func FuzzFilter(f *testing.F) {
	f.Add("orders-*,re:^web-{1,2}", "re:[,]")
	f.Add("a", `re:\`)
	f.Fuzz(func(t *testing.T, include, exclude string) {
		filter, err := ParseFilter(include, exclude)
		if err != nil {
			return
		}
		for _, name := range filter.Names() {
			if !filter.Has(name) {
				t.Errorf("%q is named and not chosen", name)
			}
		}
		if _, err := ParseMapping("", include); err == nil && strings.Contains(include, "*") {
			t.Errorf("%q is taken for renames", include)
		}
	})
}
