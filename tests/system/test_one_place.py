"""What only some systems have is used in `corepress.system` alone, and text files say how they are encoded."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import corepress

ROOT = Path(corepress.__file__).parent
MODULES = {
    "fcntl", "grp", "msvcrt", "nt", "posix", "pwd", "resource", "termios", "tty", "pty", "winreg", "_winapi",
}  # fmt: skip
OF_MODULES = {
    "os": """O_BINARY O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown copy_file_range fchdir fchmod fchown fdatasync
        fork getegid geteuid getgid getlogin getpgid getuid getxattr kill killpg lchmod link lchown mkfifo mknod nice
        posix_fadvise posix_fallocate pread preadv process_cpu_count pwrite readlink sched_getaffinity sendfile
        setxattr splice startfile statvfs symlink sync sysconf sysconf_names umask uname wait waitpid""",
    "signal": """SIGALRM SIGBREAK SIGBUS SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 SIGVTALRM SIGXFSZ
        ITIMER_REAL ITIMER_VIRTUAL alarm pause pthread_kill pthread_sigmask setitimer siginterrupt""",
    "mmap": "MADV_DONTNEED MADV_SEQUENTIAL MADV_WILLNEED MAP_ANONYMOUS MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
    "ctypes": "CDLL WinDLL windll",
    "time": "clock_gettime tzset",
    "multiprocessing": "*",
}
FORBIDDEN = {f"{module}.{name}" for module, names in OF_MODULES.items() for name in names.split()}
PLACES = ("/proc", "/dev", "/sys", "/tmp", "/etc", "/usr", "C:\\")
# Where a look comes first, or an error that says so is what is wanted.
EXCEPTIONS = {
    ("coreml/format/package.py", "os.readlink"),  # of what is a symbolic link
    ("coreml/format/package_writer.py", "os.readlink"),
    ("interrupts.py", "signal.pthread_kill"),  # asked for by hasattr, as the next three
    ("mapped_files.py", "mmap.MADV_DONTNEED"),
    ("coreml/format/weight_file.py", "os.pread"),
    ("coreml/format/weight_file.py", "os.preadv"),
    ("optimize/coreml/models.py", "os.link"),  # or a copy
}


def texts_opened_without_encoding(tree: ast.AST) -> list[int]:
    """Lines that open a text file, or another program's output as text, in whatever encoding the system has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        on = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        options = {each.arg: each.value for each in node.keywords}
        if "encoding" in options:
            continue
        if name in ("read_text", "write_text", "TextIOWrapper", "NamedTemporaryFile", "TemporaryFile"):
            found.append(node.lineno)
        if name == "open" and on not in ("os", "Asset", "Package", "Image", "cls"):
            mode = options.get("mode") or next((each for each in node.args if _is_mode(each)), None)
            if not (mode is not None and "b" in ast.literal_eval(mode)):
                found.append(node.lineno)
        if on == "subprocess" and {"text", "universal_newlines"} & options.keys():
            found.append(node.lineno)
    return found


def _is_mode(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and set(node.value) <= set("rwxabt+")


def used_names(tree: ast.AST) -> dict[str, int]:
    """Names of other modules that a module uses, and the places on a disk in its texts, with their lines."""
    found: dict[str, int] = {}
    documentation = {id(node.body[0].value) for node in ast.walk(tree) if ast_has_docstring(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.partition(".")[0]] = node.lineno
            found.update((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found[f"{node.value.id}.{node.attr}"] = node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            found.update((place, node.lineno) for place in PLACES if node.value.startswith(place))
    return found


def ast_has_docstring(node: ast.AST) -> bool:
    """Whether a node begins with its documentation."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


def modules() -> list[str]:
    """All modules, by their paths."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith("system/")])
def test_only_one_place_knows_systems(name):
    used = used_names(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    wrong = {each: line for each, line in used.items() if each in MODULES | FORBIDDEN or each in PLACES}
    assert {each: line for each, line in wrong.items() if (name, each) not in EXCEPTIONS} == {}


def test_every_exception_is_needed():
    for name, each in EXCEPTIONS:
        assert each in used_names(ast.parse((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", modules())
def test_text_files_have_an_encoding(name):
    assert texts_opened_without_encoding(ast.parse((ROOT / name).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    ["open(path)", "open(path, 'w')", "path.open()", "path.read_text()", "path.write_text('a')",
     "subprocess.run(command, text=True)"],
)  # fmt: skip
def test_the_search_finds_texts(code):
    assert texts_opened_without_encoding(ast.parse(code)) == [1]


@pytest.mark.parametrize("code", ["open(path, 'rb')", "path.open('xb')", "path.read_text(encoding='utf-8')"])
def test_the_search_leaves_others_alone(code):
    assert texts_opened_without_encoding(ast.parse(code)) == []


@pytest.mark.parametrize("code", ["import fcntl", "from os import getuid", "os.fchmod(1, 2)", "Path('/proc/self')"])
def test_the_search_finds_names(code):
    assert set(used_names(ast.parse(code))) & (MODULES | FORBIDDEN | set(PLACES))
