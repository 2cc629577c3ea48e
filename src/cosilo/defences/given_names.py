"""Given names of people, for texts where a capital letter tells nothing: code, chats without capitals,
names of files.

Those that at least two of 10,000 women or men bore in the United States in 1990 (Census Bureau,
"Frequently Occurring Surnames and Given Names", in the public domain).
"""

from __future__ import annotations

from cosilo.defences.words import of

ALSO_WORDS = of("""
al alma amber barry bob brandy jimmy laurel marina patty sherry angel angelica april
aurora austin bill bonita brad brooke candy carol carolina
celeste chad chelsea chester christian clay constance crystal daisy dale dallas dawn dean dixie
don drew earl earnest ebony ed faith fay fern florence frank gene georgia ginger glen grace
grady grant guy hazel heather holly homer hope iris israel jack jan jasmine jay jean jesus jewel
jo jordan josh joy june justin kay lance lee loren lou luz mack mae mark max may melody mercedes
misty moses myrtle neal nick olive opal orlando pat pearl penny ray rex robin roman rose
rosemary ruby sandy stella sue troy victor victoria viola violet virgil virginia wade warren
""")
"""Those of them that are words, months or places as well: they say little without a capital."""

GIVEN = ALSO_WORDS | of("""
aaron abigail abraham ada adam addie adele adrian adriana adrienne agnes aida aimee alan albert
alberta alberto alejandro alex alexander alexandra alexis alfonso alfred alfredo alice alicia
alisa alisha alison allan allen allison alonzo alton alvin alyssa amanda amelia amos amy ana
andre andrea andres andrew andy angela angelina angelo angie anita ann anna anne annette annie
anthony antoinette antonia antonio archie arlene armando arnold arthur arturo ashley audrey
barbara barry beatrice becky belinda ben benjamin bennie benny bernadette bernard bernice bert
bertha bessie beth bethany betsy bettie betty beulah beverly billie billy blake blanca blanche
bob bobbie bobby bonnie bradford bradley brandi brandon brandy brenda brent brett brian bridget
brittany brittney bruce bryan bryant byron caitlin caleb calvin cameron camille candace candice
cara carl carla carlos carlton carmen carole caroline carolyn carrie carroll casey cassandra
cassie catherine cathy cecelia cecil cecilia cedric celia cesar charlene charles charlie
charlotte cheri cherie cheryl chris christa christie christina christine christopher christy
cindy claire clara clarence clark claude claudia clayton cleo clifford clifton clint clinton
clyde cody colin colleen connie conrad consuelo cora corey corinne cornelius cory courtney craig
cristina curtis cynthia damon dan dana daniel danielle danny darin darla darlene darnell darrel
darrell darren darryl daryl dave david deanna debbie debora deborah debra delbert delia della
delores deloris dena denise dennis derek derrick desiree devin dewey dexter diana diane dianna
dianne dina dolores dominic donald donna donnie dora doreen doris dorothea dorothy dorthy doug
douglas doyle duane dustin dwayne dwight eddie edgar edith edmund edna eduardo edward edwin
effie eileen elaine elbert eleanor elena elias elisa elisabeth elizabeth ella ellen ellis elmer
eloise elsa elsie elva elvira emily emma enrique eric erica erick erik erika erin erma ernest
ernestine ernesto ervin esperanza essie estella estelle esther ethel etta eugene eugenia eula
eunice eva evan evelyn everett fannie faye felicia felipe felix fernando flora floyd forrest
frances francine francis francisca francisco frankie franklin fred freda freddie frederick
fredrick gabriel gail garrett garry gary gayle geneva genevieve geoffrey george gerald geraldine
gerard gerardo gertrude gilbert gilberto gina gladys glenda glenn gloria goldie gordon greg
gregg gregory gretchen guadalupe guillermo gustavo gwen gwendolyn hannah harold harriet harry
harvey hattie hector heidi helen helena helene henrietta henry herbert herman hilda horace
howard hubert hugh hugo ian ida ignacio ina inez ingrid ira irene irma irvin irving isaac isabel
ismael iva ivan jackie jacob jacqueline jacquelyn jaime jake james jamie jana jane janelle janet
janette janice janie janine janis jared jason javier jeanette jeanne jeannette jeannie jeff
jeffery jeffrey jenifer jenna jennie jennifer jenny jeremiah jeremy jermaine jerome jerry jesse
jessica jessie jewell jill jillian jim jimmie jimmy joan joann joanna joanne jodi jody joe joel
joey johanna john johnathan johnnie johnny jon jonathan jonathon jorge jose josefina joseph
josephine joshua josie joyce juan juana juanita judith judy julia julian julie julio julius kara
karen kari karin karl karla kate katherine kathleen kathryn kathy katie katrina kayla keith
kelley kelli kellie kelly kelsey kelvin ken kendra kenneth kenny kent kerri kerry kevin kim
kimberley kimberly kirk krista kristen kristi kristie kristin kristina kristine kristopher
kristy krystal kurt kyle lamar lana larry latasha latonya latoya laura laurel lauren laurence
laurie laverne lawrence leah leigh lela leland lena lenora leo leon leona leonard leroy leslie
lester leticia levi lewis lila lillian lillie linda lindsay lindsey lionel lisa lloyd lois lola
lonnie lora lorena lorene lorenzo loretta lori lorna lorraine lottie louis louise lourdes lowell
lucas lucia lucille lucinda lucy luis luke lula lupe luther lydia lyle lynda lynette lynn lynne
mabel mable madeline maggie malcolm mamie mandy manuel marc marcella marcia marco marcos marcus
margaret margarita margie marguerite maria marian marianne maribel marie marilyn marina mario
marion marissa marjorie marla marlene marsha marshall marta martha martin marty marvin mary
maryann mathew matt matthew mattie maude maureen maurice maxine megan meghan melanie melba
melinda melissa melvin meredith merle michael micheal michele michelle miguel mike mildred
milton mindy minnie miranda miriam mitchell mollie molly mona monica monique morgan morris
muriel myra myrna myron nadine nancy naomi natalie natasha nathan nathaniel neil nell nellie
nelson nettie nicholas nichole nicolas nicole nikki nina noah noel nora norma norman ola olga
oliver olivia ollie omar ora orville oscar otis owen pablo pam pamela patrica patrice patricia
patrick patsy patti patty paul paula paulette pauline pedro peggy percy perry pete peter phil
philip phillip phyllis polly preston priscilla rachael rachel rafael ralph ramiro ramon ramona
randal randall randolph randy raquel raul raymond reba rebecca rebekah regina reginald rena rene
renee rhonda ricardo richard rick rickey ricky rita robert roberta roberto robyn rochelle
roderick rodney rodolfo rogelio roger roland rolando ron ronald ronda ronnie roosevelt rosa
rosalie rosario rosemarie rosetta rosie ross roxanne roy ruben rudolph rudy rufus russell ruth
ryan sabrina sadie sallie sally salvador salvatore sam samantha sammy samuel sandra santiago
sara sarah saul scott sean sergio seth shane shanna shannon shari sharon shaun shawn shawna
sheila shelby sheldon shelia shelley shelly sheri sherman sherri sherrie sherry sheryl shirley
sidney silvia simon sonia sonja sonya sophia sophie spencer stacey stacie stacy stanley stefanie
stephanie stephen steve steven stewart stuart susan susanne susie suzanne sylvester sylvia
tabitha tamara tami tamika tammie tammy tanya tara tasha taylor ted terence teresa teri terrance
terrell terrence terri terry thelma theodore theresa therese thomas tiffany tim timothy tina
todd tom tomas tommie tommy toni tony tonya tracey traci tracie tracy travis trevor tricia trina
trisha trudy tyler tyrone valerie vanessa velma vera verna vernon veronica vicki vickie vicky
vincent vivian wallace walter wanda wayne wendell wendy wesley whitney wilbert wilbur wilfred
willard william willie willis wilma wilson winifred woodrow yolanda yvette yvonne zachary
""")
"""All of them, in small letters."""
