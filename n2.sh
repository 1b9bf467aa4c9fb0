e=$(printf '\033]0;pwn\007\033[31m\nX')
n="a$e.rhai"; rhopo compare "$n" 2>&1 | cat -v | head -5; echo ---; ls -la | cat -v | head -30
timeout 10 rhopo run grpo --set steps=0 prompts=4 --out "r2$e" 2>/dev/null | cat -v; echo --stderr; timeout 10 rhopo run grpo --set steps=0 prompts=4 --out "r3$e" 2>&1 >/dev/null| cat -v
rhopo run p.rhai --out pr2 2>&1 | cat -v
cat > nl.rhai <<R
let run = open_run();
R
grep -n "start_run\|let run" -m3 <(rhopo doc) 
