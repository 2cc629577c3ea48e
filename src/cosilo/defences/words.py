"""Lists of ordinary words: where each applies, its words are not taken for names or values."""

from __future__ import annotations


def of(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


# Words of questions and of SQL: never values by their capital letter or by standing in a cell alone.
OF_QUESTIONS = of("""
a an the of in on at to for from by with and or not but as is are was were be been has have had
do does did what which who whom whose when where why how many much show list give return find
get tell me us provide display count compute calculate determine identify report output include
exclude consider assume note use using all any each every per both either neither only also then
than that this these those there their its it his her he she they we you your our my i top
bottom most least more less fewer highest lowest largest smallest maximum minimum max min total
sum average avg mean median number amount distinct unique different same first last next
previous past current recent latest earliest today yesterday tomorrow now day days week weeks
month months year years hour hours minute minutes second seconds date dates time times between
before after since until during within over under above below about inclusive exclusive
including excluding order ordered sort sorted group grouped ascending descending asc desc limit
id ids name names sql sqlite null none true false yes no select join case like iso utc ytd mom
yoy can could will would should may might must please if else per-user out off up down again
still other another such one zero letter letters value values column columns table tables row
rows record records result results data percent percentage ratio rate rank ranking type types
status made make makes monday tuesday wednesday thursday friday saturday sunday weekday weekend
weekends unix datetime timestamp yyyy mm dd hh ss
""")

# Words that follow "my name", "I am", "call" … and are no names.
NOT_NAMES = of("""
mr mrs ms mx dr prof professor herr frau monsieur madame mme señor señora signor signora iban bic
ich je yo io ja ik eu bonjour buongiorno goedemorgen cordialement liefs abrazos abraços
a an the not in on at to for from by with of and or but so if is am are was were be been it this
that these those there here my your his her our their its i you he she we they me him us them
who what when where why how very really just also still sorry glad happy sad afraid sure trying
looking going having writing calling working using getting interested new old big small good bad
fine ok okay well back home out up down off over now then today tomorrow yesterday again all any
some no none more most much many few one two three about account card number name first last
please thanks thank appears incorrectly everyone everybody team sir madam support customer
service details after before because as than cambodian american german french english unemployed
allergic unable able done ready late early would could should can will may might must do does
did has have had being who's whose which wrong correct right spelled written required missing
listed changed called named known used made said says years year day days week month married
single pregnant located born based coming concerned contacting tired worried curious considering
planning currently always never only even both each every another other such same own too quite
rather almost already yet
""")

# Words of programs, of their languages and of computers: no names of people or places.
OF_PROGRAMS = of("""
abort abs access ack acl add admin aes agile ai ajax algorithm alias all alter analyze and
android angular ansible any apache api apis app append apply apt arg args argument arguments
argv arm array arrays as asc ascii assert async attr attribute authentication auto await aws
awk azure backend backup base64 bash batch begin between bigint binary bind bit bitbucket
block bool boolean bootstrap boundary branch break browser bsd btree buffer bug build bundle
byte bytes cache call callable callback canvas cargo case cast catch cd cert certificate
char charset checkpoint checksum chmod chrome ci cidr class classpath cli client clojure
clone cloud cluster cmake coalesce code codec column columns command commit compile compiler
config configuration connection console const constraint constructor container content
context cookie copy core cors count cp cpu create cron cross cryptography css csv cube curl
current cursor cut cpython daemon dart dashboard data database dataclass dataframe dataset
datetime dba ddl debian debug decimal declare decode def default default: define delete
delta deploy dep deprecated desc describe dev devops dict diff digest dir directory disk
distinct django dll dns docker docs document domain dos double driver drop dtype dump
duration echo edge editor elif else elastic elasticsearch elixir else email emacs embed
embedding encode encoding encryption end endpoint engine enum env environment eof equal
error errors escape eslint etag ethernet etl event except exception exclude exec execute
exists exit explain export expr expression extend extension extern false fastapi fetch field
file filename files filesystem filter finally firefox firewall firmware first flag flask
flatten float flow flush fn folder font for foreach foreign fork format fortran frame
framework free from frontend ftp full func function functions fuzzy gantt gateway gawk gb gc
gcc gem generator get git github gitlab global gnu go golang goto gpu gradient gradle
grafana grant graph graphql grep group grpc gui gulp gzip hash hashmap haskell having header
headers heap hex homebrew hook host hostname html http https hub id identifier idle if iface
ignore iis image immutable implements import in include index indices inet info inherit init
inner input insert install instance int integer intellij interface interval into invalid io
ios ip ipv4 ipv6 iphone is iso iterable iterator iteration java javascript jdk jenkins jest
jira job join jpa jquery json jsx julia jupyter jvm jwt kafka kernel kerberos key keyerror
keyword keywords kotlin kube kubernetes lambda lan last latency latex ldap left len less let
lexer lib library like limit line lines link linux lint lisp list listen listener literal
literals llm load local localhost locale lock log logger login logout long loop lower lua
lvm mac machine macos main make makefile malloc manifest map mapping markdown mask master
matlab matplotlib matrix maven max mawk mb md5 mem memory merge message meta metadata method
micro microsoft middleware min mime minify mobile mod mode model module mongo mongodb monad
mount mozilla msg mutable mutex mvc mvn mysql name namedtuple namespace nan nano natural
nested net netbsd network nginx ngrok nil nlp node nodejs none nosql not notebook
notimplementederror nothing npm null nulls number numeric numpy nvidia oauth object objects
odbc off offset on oop open openbsd opencv openid openssh openssl openvpn operator option
optional options or oracle order orm os oserror osi out outer output over overflow override
owner pack package packet page pandas param parameter parameters parse parser partition pass
password patch path pathlib pattern pcre pdf pem perl permission perms php ping pip pipe
pipeline pixel pkcs plugin png pod pointer poll polars pool pop port posix post postgres
postgresql powershell pragma precision prepare primary print printf private process profile
program prometheus promise prompt property protected protocol proxy pub public pull push put
py pydantic pypi pytest python pytorch qt query queue quit quote ram random range rails
raise raises rank rate raw react read readme readonly real record recursive redhat redirect
redis reduce redux ref refactor refactoring reference regex register registry release remote
rename render repl replace repo repository request requests require required reset resolve
response rest result return returns reverse revoke rfc right role rollback root route router
row rows rpm rsa rsync ruby rule run runtime rust safari sample scala scalar scale schema
scikit scipy scope screen script scrum sdk search secure security sed select self selenium
selinux semaphore seq sequence sequelize serial serialize server service session set setattr
settings setup sha sha1 sha256 shader shard shell sigmoid signal signature similar size skip
sklearn slack sleep slice smallint smtp snapshot soap socket sock softmax solaris solr sort
source space spark spec splice split spring sql sqlite sqlserver ssd ssh ssl stack stage
stash state statement static status std stderr stdin stdout step stl stop storage store str
stream string strings strip struct stub sub subclass subprocess subquery sudo sum super
svelte svg swap swift switch swot symbol sync syntax synopsis sys syslog system systemd tab
table tables tag tail tar target task tcl tcp telnet temp template tensor tensorflow
terminal terraform test tests text then thread threads throw throws time timeout timestamp
timezone tls tmp todo token tokens tool top torch total trace traceback tracker transaction
trigger trim true truncate try tsv ttl tuple tunnel tutorial txt type typeerror types
typescript typevar ubuntu udp ui uid uint undefined unicode union unique unit unix unknown
unsigned until update upload upper upsert url urls usage usb use user username users using
utc utf utf8 uuid ux valid validate value valueerror values var varchar variable vector
vendor verbose version vi view vim virtual vm void volume vpn vs vscode vue wait warning
warnings web webhook webpack websocket wget when where while whitespace widget wifi wiki
window windows with word wordpress worker workflow workspace wrapper write wsgi www xargs
xcode xhr xml xor xpath xss yaml yarn yield zip zlib zsh avg cte dense lag lead lateral
nullif nvl partition row_number strftime julianday date_trunc extract interval kanban uml
crud saas paas iaas kpi roi seo erp crm mvp poc qa sla slo rag mcp lora gguf llama gpt bert
numpy sklearn matplotlib seaborn keras xgboost lightgbm streamlit airflow dbt snowflake
bigquery databricks tableau ingress swarm istio nomad consul kustomize argo
excel powerpoint outlook sharepoint salesforce zapier notion
figma confluence trello anthropic openai deepseek qwen gemini gemma mixtral mistral moonshot ollama
litellm langchain starlette uvicorn hypercorn aiohttp asyncio joblib dask gradio theano caffe autograd
monkeypatch monkeypatching psycopg sqlalchemy setuptools pypy cython roc auc
patroni pgbouncer rabbitmq sidekiq gunicorn nestjs nuxt remix gatsby eleventy jekyll backbone mobx saga
zustand jotai tanstack prisma drizzle knex mocha sinon cypress playwright puppeteer karma storybook
rollup parcel esbuild turbopack lerna bazel sbt leiningen poetry pipenv conda mamba tox nox flake8
pylint mypy ruff isort dramatiq scrapy beautifulsoup lxml pillow plotly bokeh altair vaex mlflow
kubeflow sagemaker langgraph crewai autogen chroma chromadb pinecone weaviate qdrant milvus faiss
opensearch kibana logstash fluentd jaegertracing zipkin datadog splunk pagerduty opsgenie pulumi puppet
packer podman buildah skopeo containerd cilium calico flannel linkerd envoy traefik caddy haproxy
varnish memcached scylla couchdb neo4j arangodb influxdb timescale clickhouse duckdb redshift presto
trino flink samza nifi airbyte fivetran dagster prefect hadoop hdfs zookeeper etcd flutter ionic
cordova xamarin unreal godot iec ieee ansi nist ietf w3c oasis
astro celery grafana haskell helm selenium tomcat vagrant vite vitess
""")

# Those of them that are ordinary words as well: they do not make a text a technical one.
ORDINARY = of("""
access account address all and any apply area at auto back bad balance base batch before begin
between block body book bool bound branch break browser buffer build bundle but by call can card
case change check class clean clear close cloud code column condition context cookie copy core
correct count create cross current daily data date deep default delete demand deploy depth desk
detail device dictionary digital direct directory display document domain double draft drive driver
drop edge else email end engine enter entry equal error escape event except exception exclude exit
explain expression extend external false field file filter final find first fix flag float flow
folder font for force fork format frame free from full function fuzzy gateway general get global go
grant graph grid group handle hash having head header heap help hide home hook host hub if ignore
image import in include index info initial input insert inside install instance integer interest
interface internal into invalid invoke is issue item java job join keep kernel key lambda last layer
lead leave left legacy length less level library like limit line link list listen load local lock
long loop mail master match message mobile move name normal note null number object off online open
option order out over owner pack page pass password patch path pattern payment phone pin place port
post power present press print private process profile promise protocol public pull pump push range
rank rate read real reason record records reference release remote report request response rest
result return review reward right role root round route rule run sample scale scope screen search
section security select self sense sequence service session set share short signature size skip
sleep slice sort source space split spring stack stage state statement static status step stop store
strip struct style subject sum support sure swift switch symbol sync tab table tag tail target task
temp template terminal test text then thread time token tool top topic total trace track trial
trigger trim true try type union unique unit unknown until up update upload upper usage use user
valid value variable vendor version via view virtual volume wait warning watch web wiki window
windows with word work workflow zip
""")

# Names of programs that are names of people, too: which of both is told by what stands beside.
ALSO_NAMES = of("""
ada apollo athena bert cassandra celeste claude claudes cody daphne dart elif ember erica erlang euler
gauss grant hugo iris jaeger jasmine jenkins julia julius juno loki lora luigi luna max nova oscar
otto pascal ray ruby sage sherlock travis
""")

# Words with a number after or before them that are no streets.
NUMBERED = of("""
act address age aisle am americans annex apollo appendix apr april area article aug august bay bed
bedroom bedrooms block book booth box bus bytes car case category cell celsius channel chapter class
clause cm coach column covid cup day days dec decade degree degrees deliver dimension district
division dollar dollars dose draft driver drivers elevator energy entry episode error eur euro
europeans euros event example exercise exhibit exit experiment fahrenheit feb fig figure files
flight floor formula game gate gb gbp generation germans ghz goal grade grades group groups hall
hertz highway hour hours hz ipad iphone items iteration jan jul july jun june kg kilometers km lane
last law lecture lesson level levels line lines liter liters locker lot lt mar march mb meters mhz
mi midnight mile miles milestone minute minutes ml mm model module month months motion noon nov
number oct option order page pages panel paragraph part parts people percent period persons phase
photo picture pieces platform player players pm point points postal postcode pound pounds prize
problem proposal q quarter question rooms round row rule run scene schedule screen season seat
second seconds section sector sep sept september series session set slide slot song stage star stars
step steps story sub subject tab table task team teams tel terminal test theme theorem tier times
tip title top topic track train type unit units usd users version vol volume war wave weather week
weeks wing world year years zip zone
""")

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Surnames that are ordinary words in small letters.
SURNAMES_TOO = of("""
abbot angel apple archer armour arms army ash back bacon badger baker ball banks barber bark barker
barn baron barrel barrow bass baxter beach bean bear beard bell bench berry best bird bishop black
blade blank blood bloom board boat bolt bond bone book boot border bowl bowman brand bread brewer
brick bridge bridges bright brook brown buck budd bull bunch burden burn burns bush butcher butler
butter call camp canal cannon canon carpenter carter carver case cash castle chamberlain chambers
champion chance chandler chase church clay clerk click close coach coal cold cole collar comb cook
cooper corn corner cotton couch country court cove craft crane creek crisp crook cross crow crown
curry daily dance dark dash dear diamond dove draper dry duke dyer eagle early east easter elder
english eve falcon farmer farrier fast ferry field fields finch fine fire fish fisher flag fletcher
flint flood flower flowers ford foreman forest forester foster fowler fox free french friend frost
fuller game garden gardener gardens gates gear gentle german gift glass glover gold golden good
goose grain gray grazer great green grey grove guest hall hammer hand hands hardy harp hart hawk hay
head heard heart heath hedge herring high hill hills holiday holland home honey hook hooper hope
horn horne horse house hunt hunter huntsman iron jewel joiner judge justice keep keeper key keys
kind king knight lake lamb land lane large laughter law lawn lawyer leach leaf light lion little
lock lodge long lord love luck major maker manner march mark marks marsh marshal marshall mason
masters mayor meadows mercer merchant mercy messenger meter mild mile miles mill miller mills miner
mint money monk moody moon moor more morrow moss mount mountain music nail nation new nice night
noble noon norm north oak ocean olive orange orchard page pain painter palace pane parish park parks
parrot parson partridge patch path peace peacock peak pepper perfect person pick piece pike place
plant plumb plumber pole polish pond pool pope porter post pot potter pound powers price pride
priest prince prior prophet proud queen quick rain ranger raven read reader real reed rice rich
rider ridge ring rivers road rock rocks rogue rose rounds royal rush sage saint sample sand sands
savage sawyer school scribe seal seaman senior sergeant shade sharp shears sheep shepherd sheriff
shield ship shoemaker shore short silver simmer singer singular sky slater small smart smith smooth
snow soldier south spark sparks spear speed spring squire stable staff star stark start steel stern
steward still stock stone storm story street strong summer summers swan sweet swift table tailor
tanner teller temple thatcher thorn tiger timber towers town travel tree turner vane waggoner wake
walk walker wall waller walls ward ware warren waters way weaver weeks well wells west wheel wheeler
white wild wilder winter winters wise wolf wood woods word words workman worth wright yard yellow
young younger
""")
